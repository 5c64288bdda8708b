"""Parametric shapes and the points drawn on them."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from polydit.core.errors import InputError
from polydit.pointgen.cloud import fault
from polydit.pointgen.data.meshes import sample_surface, triangle_areas
from polydit.pointgen.data.shapes import CATEGORIES, shape_mesh, shape_points

FEW = range(10)


@pytest.mark.parametrize("category", CATEGORIES)
def test_shapes_fill_the_unit_box_and_are_centred(category: str) -> None:
    for index in FEW:
        low, high = shape_mesh(category, 3, index).bounds
        assert np.allclose(low, -high) and np.isclose((high - low).max(), 1.0)
        points = shape_points(category, 3, index, 500)
        assert points.dtype == np.float32 and points.shape == (500, 3) and not fault(points)
        assert np.abs(points).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_part_is_closed_and_faces_outwards(category: str) -> None:
    for index in FEW:
        for part in shape_mesh(category, 0, index).split(only_watertight=False):
            merged = trimesh.Trimesh(part.vertices, part.faces, process=True)
            assert merged.is_watertight and part.volume > 0


@pytest.mark.parametrize("category", ["airplane", "car"])
def test_vehicles_are_longer_than_high_and_the_same_left_and_right(category: str) -> None:
    for index in FEW:
        mesh = shape_mesh(category, 1, index)
        assert mesh.extents[1] < mesh.extents[2]  # y is up, the length lies along z
        mirrored = mesh.vertices * [-1, 1, 1]
        assert cKDTree(mesh.vertices).query(mirrored)[0].max() < 0.01


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    for category in CATEGORIES:
        first = shape_points(category, 5, 7, 300)
        assert first.tobytes() == shape_points(category, 5, 7, 300).tobytes()
        assert not np.array_equal(first, shape_points(category, 6, 7, 300))
        assert not np.array_equal(first, shape_points(category, 5, 8, 300))


def distances(clouds: list[np.ndarray]) -> np.ndarray:
    """Chamfer distances of all pairs."""
    trees = [cKDTree(points) for points in clouds]
    one_way = np.array([[(tree.query(points)[0] ** 2).mean() for tree in trees] for points in clouds])
    return one_way + one_way.T


def test_categories_are_told_apart_by_the_nearest_neighbour() -> None:
    clouds = [shape_points(name, 0, index, 512) for name in CATEGORIES for index in FEW]
    labels = np.repeat(np.arange(len(CATEGORIES)), len(FEW))
    distance = distances(clouds)
    np.fill_diagonal(distance, np.inf)
    assert (labels[distance.argmin(1)] == labels).mean() > 0.9


@pytest.mark.parametrize("category", CATEGORIES)
def test_shapes_of_a_category_differ_by_more_than_the_draw_of_their_points(category: str) -> None:
    mesh = shape_mesh(category, 0, 0)
    vertices, faces = np.array(mesh.vertices), np.array(mesh.faces)
    same = [sample_surface(vertices, faces, 2048, np.random.default_rng(k)) for k in range(2)]
    apart = distances([shape_points(category, 0, index, 2048) for index in range(6)])
    assert apart[np.triu_indices(6, 1)].mean() > 2 * distances(same)[0, 1]


def test_an_unknown_category() -> None:
    with pytest.raises(InputError, match=r"'sofa'.*airplane, car, chair, table"):
        shape_points("sofa", 0, 0, 10)


# --- points on triangles --------------------------------------------------------------------------------

SQUARE = np.array([(0.0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (9, 9, 9)])


def test_points_are_spread_by_area() -> None:
    vertices = np.array([(0.0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 5), (3, 0, 5), (0, 3, 5)])
    faces = np.array([(0, 1, 2), (3, 4, 5)])
    assert np.allclose(triangle_areas(vertices, faces), [0.5, 4.5])
    points = sample_surface(vertices, faces, 20_000, np.random.default_rng(0))
    assert abs((points[:, 2] == 5).mean() - 0.9) < 0.01
    small = points[points[:, 2] == 0]
    assert np.allclose(small[:, :2].mean(0), 1 / 3, atol=0.02) and (small[:, :2].sum(1) <= 1 + 1e-6).all()


def test_triangles_without_area_get_no_points() -> None:
    faces = np.array([(0, 0, 1), (0, 1, 2), (4, 4, 4)])
    points = sample_surface(SQUARE, faces, 1000, np.random.default_rng(0))
    assert points.max() <= 1.0


def test_a_surface_without_area_is_refused() -> None:
    with pytest.raises(InputError, match="2 faces have no area"):
        sample_surface(SQUARE, np.array([(0, 1, 1), (2, 2, 2)]), 5, np.random.default_rng(0))
    with pytest.raises(InputError, match="no faces"):
        sample_surface(SQUARE, np.zeros((0, 3), np.int64), 5, np.random.default_rng(0))
