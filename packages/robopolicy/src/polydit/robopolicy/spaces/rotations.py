"""Rotations as six numbers without jumps, and the forms in which robots give them. numpy only, any leading axes.

Source of the 6D form: Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", 2019. As in RDT
the six numbers are the first two columns of the matrix one after the other, and the way back is z = x × y', y = z × x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from polydit.core.errors import InputError

_TINY = 1e-9  # below it a direction is not defined

Matrix = Float[np.ndarray, "*rows 3 3"]
Triple = Float[np.ndarray, "*rows 3"]
Quaternion = Float[np.ndarray, "*rows 4"]
Six = Float[np.ndarray, "*rows 6"]


def six_from_matrix(matrix: Matrix) -> Six:
    """The first two columns one after the other."""
    return np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)


def matrix_from_six(six: Six) -> Matrix:
    """The rotation nearest in Gram-Schmidt's sense; any length of the two columns will do.

    Raises:
        InputError: The two columns are parallel, or one is zero.
    """
    x = _unit(six[..., :3])
    z = _unit(np.cross(x, six[..., 3:]))
    return np.stack([x, np.cross(z, x), z], axis=-1)


def matrix_from_euler(angles: Triple) -> Matrix:
    """Roll, pitch and yaw in radians about the fixed axes x, y, z in this order ('xyz' of scipy): Rz Ry Rx."""
    (cx, cy, cz), (sx, sy, sz) = np.moveaxis(np.cos(angles), -1, 0), np.moveaxis(np.sin(angles), -1, 0)
    rows = [
        [cy * cz, sx * sy * cz - cx * sz, cx * sy * cz + sx * sz],
        [cy * sz, sx * sy * sz + cx * cz, cx * sy * sz - sx * cz],
        [-sy, sx * cy, cx * cy],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def euler_from_matrix(matrix: Matrix) -> Triple:
    """Roll, pitch and yaw, radians; at a pitch of ±90 degrees the roll is 0."""
    pitch = np.arcsin(np.clip(-matrix[..., 2, 0], -1.0, 1.0))
    lost = np.hypot(matrix[..., 0, 0], matrix[..., 1, 0]) < _TINY
    roll = np.where(lost, 0.0, np.arctan2(matrix[..., 2, 1], matrix[..., 2, 2]))
    yaw = np.where(
        lost,
        np.arctan2(-matrix[..., 0, 1], matrix[..., 1, 1]),
        np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0]),
    )
    return np.stack([roll, pitch, yaw], axis=-1)


def matrix_from_quaternion(quaternion: Quaternion) -> Matrix:
    """From x, y, z, w of any length but zero.

    Raises:
        InputError: It is zero.
    """
    x, y, z, w = np.moveaxis(_unit(quaternion), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_matrix(matrix: Matrix) -> Quaternion:
    """x, y, z, w of length 1 with w >= 0.

    Source: Shepperd, "Quaternion from rotation matrix", 1978: of four equal forms the one with the largest divisor.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (
        [matrix[..., row, column] for column in range(3)] for row in range(3)
    )
    forms = [
        [1 + xx - yy - zz, xy + yx, xz + zx, zy - yz],
        [xy + yx, 1 - xx + yy - zz, yz + zy, xz - zx],
        [xz + zx, yz + zy, 1 - xx - yy + zz, yx - xy],
        [zy - yz, xz - zx, yx - xy, 1 + xx + yy + zz],
    ]
    candidates = np.stack([np.stack(form, axis=-1) for form in forms], axis=-2)
    best = np.argmax(np.diagonal(candidates, axis1=-2, axis2=-1), axis=-1)
    chosen = _unit(np.take_along_axis(candidates, best[..., None, None], axis=-2)[..., 0, :])
    return np.where(chosen[..., 3:] < 0, -chosen, chosen)


def matrix_from_vector(vector: Triple) -> Matrix:
    """From the rotation vector: axis times angle in radians (Rodrigues)."""
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    half = np.sinc(angle / (2 * np.pi)) / 2  # sin(angle / 2) / angle, also at 0
    return matrix_from_quaternion(np.concatenate([vector * half, np.cos(angle / 2)], axis=-1))


def vector_from_matrix(matrix: Matrix) -> Triple:
    """The rotation vector with an angle of at most π."""
    quaternion = quaternion_from_matrix(matrix)
    sine = np.linalg.norm(quaternion[..., :3], axis=-1, keepdims=True)
    half = np.arctan2(sine, quaternion[..., 3:])
    return quaternion[..., :3] * np.where(sine < _TINY, 2.0, 2 * half / np.maximum(sine, _TINY))


def _unit(vectors: Float[np.ndarray, "*rows n"]) -> Float[np.ndarray, "*rows n"]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if (length < _TINY).any():
        raise InputError("a rotation has no direction: its numbers are zero or its two columns parallel")
    return vectors / length


class RotationForm(NamedTuple):
    """A way to write a rotation.

    Attributes:
        size: How many numbers it has.
        to_matrix: To a 3 x 3 matrix.
        from_matrix: And back.
    """

    size: int
    to_matrix: Callable[[np.ndarray], np.ndarray]
    from_matrix: Callable[[np.ndarray], np.ndarray]


FORMS = {
    "6d": RotationForm(6, matrix_from_six, six_from_matrix),
    "euler-xyz": RotationForm(3, matrix_from_euler, euler_from_matrix),
    "quaternion-xyzw": RotationForm(4, matrix_from_quaternion, quaternion_from_matrix),
    "rotation-vector": RotationForm(3, matrix_from_vector, vector_from_matrix),
}
