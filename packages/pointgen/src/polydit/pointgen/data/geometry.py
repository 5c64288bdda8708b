"""What a file holds: triangles or points, as they stand there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from polydit.core.errors import InputError
from polydit.pointgen.cloud import fault
from polydit.pointgen.data.arrays import read_npy, read_npz, read_xyz
from polydit.pointgen.data.headers import (
    check_glb,
    check_obj,
    check_off,
    check_ply,
    check_size,
    check_stl,
)
from polydit.pointgen.data.meshes import sample_surface

if TYPE_CHECKING:
    import trimesh

# In this order one is taken where the same shape is there in several formats.
FORMATS = (".npy", ".npz", ".ply", ".glb", ".obj", ".off", ".stl", ".xyz")
_ARRAYS: dict[str, Callable[[Path], np.ndarray]] = {".npy": read_npy, ".npz": read_npz, ".xyz": read_xyz}
_CHECKS: dict[str, Callable[[Path], dict[str, str] | None]] = {
    ".ply": check_ply,
    ".glb": check_glb,
    ".obj": check_obj,
    ".off": check_off,
    ".stl": check_stl,
}
_ALWAYS_MESHES = (".off", ".stl")


class Geometry(NamedTuple):
    """One shape of a file.

    Args:
        vertices: Points, or the corners of triangles.
        faces: Triangles; None = these are points.
        remarks: What our writers left in the file, such as `category`.
        row: Its number in a file of many clouds, from 0.
    """

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"] | None
    remarks: Mapping[str, str]
    row: int | None = None

    def points(self, num_points: int | None, rng: np.random.Generator) -> Float32[np.ndarray, "n 3"]:
        """Points of the shape.

        Args:
            num_points: So many: drawn on the triangles, or from the points without replacement and kept in their order.
                None = all points.
            rng: Where from.

        Raises:
            InputError: It is no shape, has no area, or too few points.
        """
        if self.faces is None:
            points = self.vertices
        else:
            if reason := fault(self.vertices):
                raise InputError(reason)
            if num_points is None:
                raise InputError("a mesh has no points of its own; say how many to draw")
            points = sample_surface(self.vertices, self.faces, num_points, rng)
        if reason := fault(points):
            raise InputError(reason)
        return pick(points.astype(np.float32), num_points, rng)


def pick(
    points: Float32[np.ndarray, "n 3"], num_points: int | None, rng: np.random.Generator
) -> Float32[np.ndarray, "m 3"]:
    """So many of the points, drawn without replacement and in their order; None = all.

    Raises:
        InputError: There are fewer.
    """
    if num_points is None or num_points == len(points):
        return points
    if num_points > len(points):
        raise InputError(f"it has {len(points)} points, fewer than the {num_points} asked for")
    return points[np.sort(rng.choice(len(points), num_points, replace=False))]


def count_rows(path: Path) -> int | None:
    """How many clouds an array file holds; None if it is one shape.

    Raises:
        InputError: It cannot be read.
    """
    if path.suffix.lower() not in (".npy", ".npz"):
        return None
    array = _ARRAYS[path.suffix.lower()](path)
    return len(array) if array.ndim == 3 else None


def read_geometry(path: Path, row: int | None = None) -> Iterator[Geometry]:
    """The shapes of a file: one, or the rows of an array of clouds.

    Args:
        path: A file of one of `FORMATS`.
        row: Only this row.

    Raises:
        InputError: The file is unreadable, empty, cut off, too large or of an unknown format.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise InputError("its format is unknown", where=str(path), expected=" ".join(FORMATS))
    try:
        check_size(path)
        if suffix in _CHECKS:
            yield _through_trimesh(path, _CHECKS[suffix](path) or {})
            return
        array = _ARRAYS[suffix](path)
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}", where=str(path)) from error
    if array.ndim == 2:
        yield Geometry(np.asarray(array, np.float64), None, {})
        return
    for number in range(len(array)) if row is None else [row]:
        yield Geometry(np.asarray(array[number], np.float64), None, {}, number)


def _through_trimesh(path: Path, remarks: Mapping[str, str]) -> Geometry:
    """Meshes of a file as one, or its points if it has no mesh."""
    import trimesh

    suffix = path.suffix.lower()
    try:
        with path.open("rb") as handle:  # as a stream: no file that it names is opened
            scene = trimesh.load_scene(
                handle, file_type=suffix[1:], process=False, skip_materials=True, maintain_order=True
            )
        meshes, clouds = _placed(scene)
    except OSError:
        raise
    except Exception as error:  # parsers of files that we did not write fail in any way
        raise InputError(f"it cannot be read as {suffix[1:].upper()}: {error}", where=str(path)) from error
    if any(len(faces) for _, faces in meshes) or suffix in _ALWAYS_MESHES:
        return _joined(meshes, remarks, path)
    vertices = [vertices for vertices, _ in meshes] + clouds
    if not sum(map(len, vertices)):
        raise InputError("it has no vertices", where=str(path))
    return Geometry(np.concatenate(vertices), None, remarks)


_Mesh = tuple[np.ndarray, np.ndarray]


def _placed(scene: trimesh.Scene) -> tuple[list[_Mesh], list[np.ndarray]]:
    """Triangles and points of a scene, each where its node puts it."""
    meshes: list[_Mesh] = []
    clouds: list[np.ndarray] = []
    for node in sorted(scene.graph.nodes_geometry):
        matrix, name = scene.graph[node]
        entry = scene.geometry[name]
        vertices = np.asarray(entry.vertices, np.float64)
        if not np.array_equal(
            matrix, np.eye(4)
        ):  # a product with 1 and 0 would turn infinite numbers into others
            vertices = vertices @ np.asarray(matrix, np.float64)[:3, :3].T + matrix[:3, 3]
        if hasattr(entry, "faces"):
            meshes.append((vertices, np.asarray(entry.faces, np.int64).reshape(-1, 3)))
        else:
            clouds.append(vertices)
    return meshes, clouds


def _joined(meshes: list[_Mesh], remarks: Mapping[str, str], path: Path) -> Geometry:
    """Meshes as one, without vertices that no face uses."""
    if not any(len(faces) for _, faces in meshes):
        raise InputError("it has no faces", where=str(path))
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    vertices = np.concatenate([vertices for vertices, _ in meshes])
    faces = np.concatenate([faces + start for (_, faces), start in zip(meshes, starts[:-1], strict=True)])
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise InputError(f"a face names a vertex beyond the {len(vertices)} there are", where=str(path))
    used, places = np.unique(faces, return_inverse=True)
    return Geometry(vertices[used], places.reshape(-1, 3).astype(np.int64), remarks)
