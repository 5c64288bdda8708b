"""Shapes of four categories, each a function of a seed and a number; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from polydit.core.errors import InputError
from polydit.pointgen.data.meshes import sample_surface
from polydit.pointgen.data.recipe import CATEGORIES
from polydit.pointgen.data.shapes.airplane import airplane
from polydit.pointgen.data.shapes.car import car
from polydit.pointgen.data.shapes.chair import chair
from polydit.pointgen.data.shapes.primitives import Part
from polydit.pointgen.data.shapes.table import table

if TYPE_CHECKING:
    import trimesh

__all__ = ["CATEGORIES", "shape_mesh", "shape_points"]

_BUILDERS: dict[str, Callable[[np.random.Generator], Part]] = {
    "airplane": airplane,
    "car": car,
    "chair": chair,
    "table": table,
}


def shape_mesh(category: str, seed: int, index: int) -> trimesh.Trimesh:
    """The surface of a shape: centred on its bounding box, longest side 1, y up, its front towards -z.

    Args:
        category: One of `CATEGORIES`.
        seed: Of the data set, at least 0.
        index: Number of the shape, at least 0.

    Raises:
        InputError: There is no such category.
    """
    import trimesh

    part, _ = _build(category, seed, index)
    return trimesh.Trimesh(part.vertices, part.faces, process=False)


def shape_points(category: str, seed: int, index: int, num_points: int) -> Float32[np.ndarray, "n 3"]:
    """Points of a shape, drawn evenly over its surface; the same bytes every time.

    Args:
        category: One of `CATEGORIES`.
        seed: Of the data set, at least 0.
        index: Number of the shape, at least 0.
        num_points: How many points.

    Raises:
        InputError: There is no such category.
    """
    part, rng = _build(category, seed, index)
    return sample_surface(part.vertices, part.faces, num_points, rng)


def _build(category: str, seed: int, index: int) -> tuple[Part, np.random.Generator]:
    """The shape, and the generator in the state in which its points are drawn."""
    if category not in _BUILDERS:
        raise InputError(
            f"there is no generator of the category {category!r}", expected=", ".join(CATEGORIES)
        )
    rng = np.random.default_rng([seed, CATEGORIES.index(category), index])
    part = _BUILDERS[category](rng)
    low, high = part.vertices.min(0), part.vertices.max(0)
    return Part((part.vertices - (low + high) / 2) / (high - low).max(), part.faces), rng
