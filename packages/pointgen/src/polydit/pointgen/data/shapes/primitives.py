"""Solids with explicit faces: the same bytes with any version of any geometry library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

Point = Sequence[float | int]  # x, y, z


class Part(NamedTuple):
    """A closed surface of triangles.

    Args:
        vertices: Corners; x to the right, y up, z to the back.
        faces: Indices of the corners of each triangle, counter-clockwise from outside.
    """

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]


def join(parts: Iterable[Part]) -> Part:
    """All parts as one; where they overlap, the hidden surfaces stay, as in most models that people draw."""
    parts = list(parts)
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [part.faces + start for part, start in zip(parts, starts[:-1], strict=True)]
    return Part(np.concatenate([part.vertices for part in parts]), np.concatenate(faces))


def mirrored(part: Part) -> Part:
    """The part on the other side of the plane x = 0."""
    return Part(part.vertices * [-1.0, 1.0, 1.0], part.faces[:, ::-1])


def pair(part: Part) -> list[Part]:
    """The part and its mirror image."""
    return [part, mirrored(part)]


def loft(rings: Float64[np.ndarray, "r k 3"]) -> Part:
    """The skin over cross-sections of k corners each, closed at both ends by fans around their centres.

    The corners run counter-clockwise seen from the last ring.
    """
    count, corners = rings.shape[:2]
    ends = rings[[0, -1]].mean(1)
    return Part(np.concatenate([rings.reshape(-1, 3), ends]), _loft_faces(count, corners))


@lru_cache(maxsize=256)
def _loft_faces(count: int, corners: int) -> Int64[np.ndarray, "f 3"]:
    here = np.arange(corners)
    beside = (here + 1) % corners
    steps = (np.arange(count - 1) * corners)[:, None]
    a, b, c, d = (steps + k for k in (here, beside, beside + corners, here + corners))
    side = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    last, first_centre = (count - 1) * corners, count * corners
    bottom = np.stack([beside, here, np.full(corners, first_centre)], -1)
    top = np.stack([here + last, beside + last, np.full(corners, first_centre + 1)], -1)
    faces = np.concatenate([side, bottom, top]).astype(np.int64)
    faces.flags.writeable = False  # it is shared
    return faces


def box(low: Point, high: Point) -> Part:
    """A box between two opposite corners."""
    (x0, y0, z0), (x1, y1, z1) = low, high
    return prism(np.array([(x0, z1), (x1, z1), (x1, z0), (x0, z0)], np.float64), float(y0), float(y1))


def prism(outline: Float64[np.ndarray, "k 2"], low: float, high: float) -> Part:
    """A slab over an outline (x, z), from one height to another."""
    rings = np.empty((2, len(outline), 3))
    rings[:, :, 0], rings[:, :, 2] = outline[:, 0], outline[:, 1]
    rings[0, :, 1], rings[1, :, 1] = low, high
    return loft(rings)


def superellipse(width: float, depth: float, exponent: float, sides: int = 28) -> Float64[np.ndarray, "k 2"]:
    """An outline (x, z) around 0: exponent 2 is an ellipse, a larger one a rounded rectangle."""
    turn = -2 * np.pi * (np.arange(sides) + 0.5) / sides
    cos, sin = np.cos(turn), np.sin(turn)
    power = 2.0 / exponent
    x, z = np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power
    return np.stack([x * width / 2, z * depth / 2], -1)


def tube(path: Float64[np.ndarray, "n 3"], radii: Float64[np.ndarray, " n"], sides: int = 10) -> Part:
    """A bar along a path, with a radius at each of its points; 4 sides make it square.

    The radius of a square bar is half its width. Cross-sections are at right angles to a straight bar and bisect the
    corners of a bent one.
    """
    steps = np.diff(path, axis=0)
    steps /= np.sqrt((steps**2).sum(1, keepdims=True))
    along = np.concatenate([steps[:1], steps[:-1] + steps[1:], steps[-1:]])
    along /= np.sqrt((along**2).sum(1, keepdims=True))
    # One reference for the whole path, so that the bar does not twist.
    reference = np.eye(3)[0 if np.abs(along[:, 0]).mean() < 0.7 else 2]
    across = np.cross(along, reference)
    across /= np.sqrt((across**2).sum(1, keepdims=True))
    other = np.cross(along, across)
    turn = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    wide = radii / np.cos(np.pi / sides) if sides == 4 else radii
    circle = np.cos(turn)[:, None, None] * across + np.sin(turn)[:, None, None] * other
    return loft((path + circle * wide[:, None]).transpose(1, 0, 2))


def bar(start: Point, end: Point, radius: float, end_radius: float | None = None, sides: int = 10) -> Part:
    """A straight, possibly tapered bar."""
    radii = np.array([radius, radius if end_radius is None else end_radius])
    return tube(np.array([start, end], np.float64), radii, sides)
