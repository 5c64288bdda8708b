"""Triangles to points: drawn evenly over the area, and with the same bytes by any version of any library."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int64

from polydit.core.errors import InputError


def triangle_areas(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]
) -> Float64[np.ndarray, " f"]:
    """The area of each triangle."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    return np.asarray(0.5 * np.sqrt((normals**2).sum(1)))


def sample_surface(
    vertices: Float64[np.ndarray, "v 3"],
    faces: Int64[np.ndarray, "f 3"],
    num_points: int,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "n 3"]:
    """Points drawn independently and evenly over the area.

    Args:
        vertices: Corners.
        faces: Indices of the corners of each triangle.
        num_points: How many points.
        rng: Where from; the same state gives the same bytes.

    Raises:
        InputError: The surface has no area, or one that is no finite number.
    """
    edges = np.cumsum(triangle_areas(vertices, faces)) if len(faces) else np.zeros(1)
    if not (np.isfinite(edges[-1]) and edges[-1] > 0.0):
        raise InputError(f"its {len(faces)} faces have no area" if len(faces) else "it has no faces")
    numbers = rng.random((3, num_points))
    # A number that rounds up to the whole area would point behind the last triangle.
    chosen = np.minimum(np.searchsorted(edges, numbers[0] * edges[-1], side="right"), len(faces) - 1)
    u, v = numbers[1], numbers[2]
    beyond = u + v > 1.0  # the other half of the parallelogram is folded back
    u, v = np.where(beyond, 1.0 - u, u)[:, None], np.where(beyond, 1.0 - v, v)[:, None]
    a, b, c = (vertices[faces[chosen, corner]] for corner in range(3))
    return np.asarray(a + u * (b - a) + v * (c - a), np.float32)
