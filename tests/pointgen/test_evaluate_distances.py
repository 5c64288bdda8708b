"""Distances of clouds: known values, the three EMDs, bounds that hold, and neighbours found without all pairs."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from polydit.core.errors import InputError, PolyditError
from polydit.pointgen.evaluate.bounds import CellGrid
from polydit.pointgen.evaluate.chamfer import PointTree, chamfer_distance, chamfer_matrix, chamfer_pairs
from polydit.pointgen.evaluate.distance import Distance
from polydit.pointgen.evaluate.emd import exact_emd, kernel_emd
from polydit.pointgen.evaluate.tiles import TileStore, nearest_distances

CD, L2 = Distance("cd", 32), Distance("emd", 32, variant="exact-l2")


def clouds(count: int, points: int = 32, *, seed: int = 0) -> np.ndarray:
    """Ellipsoids of different shapes."""
    random = np.random.default_rng(seed)
    directions = random.standard_normal((count, points, 3))
    directions /= np.linalg.norm(directions, axis=2, keepdims=True)
    return (directions * random.uniform(0.1, 0.5, (count, 1, 3))).astype(np.float32)


def references(count: int) -> np.ndarray:
    return np.arange(count) >= count // 2


def test_chamfer_of_a_cloud_moved_by_less_than_its_spacing() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(4.0)] * 3), -1).reshape(-1, 3)
    moved = PointTree(grid + np.array([0.3, 0.0, 0.4]))
    assert chamfer_distance(PointTree(grid), moved) == pytest.approx(2 * 0.25)


def test_chamfer_is_the_sum_of_two_means_also_of_clouds_of_different_size() -> None:
    a, b = np.zeros((3, 3)), np.array([[0.0, 0, 0], [2.0, 0, 0]])
    assert chamfer_distance(PointTree(a), PointTree(b)) == pytest.approx(0 + 4 / 2)


def test_the_matrix_agrees_with_its_definition_and_with_torch() -> None:
    given = clouds(5)
    squares = ((given[:, None, :, None] - given[None, :, None]) ** 2).sum(-1)
    expected = squares.min(3).mean(2) + squares.min(2).mean(2)
    np.testing.assert_allclose(chamfer_matrix(list(given)), expected, atol=1e-7)
    np.testing.assert_allclose(chamfer_matrix(list(given[:2]), list(given)), expected[:2], atol=1e-7)
    a, b = (
        torch.from_numpy(given[list(side)])
        for side in zip(*itertools.product(range(5), range(5)), strict=True)
    )
    np.testing.assert_allclose(chamfer_pairs(a, b).reshape(5, 5), expected, atol=1e-7)


def test_torch_gives_zero_for_the_same_cloud_and_the_same_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.from_numpy(clouds(3)), torch.from_numpy(clouds(3, seed=1))
    assert chamfer_pairs(a, a).tolist() == [0.0, 0.0, 0.0]
    whole = chamfer_pairs(a, b)
    monkeypatch.setattr("polydit.pointgen.evaluate.chamfer._TILE_BYTES", 4 * 3 * 32 * 5)
    torch.testing.assert_close(chamfer_pairs(a, b), whole)


def test_exact_emd_is_the_best_of_all_assignments() -> None:
    a, b = clouds(2, points=5)
    orders = list(itertools.permutations(range(5)))
    distances = np.linalg.norm(a[:, None] - b[None], axis=2)
    for squared in (False, True):
        cost = distances**2 if squared else distances
        best = min(cost[range(5), order].mean() for order in orders)
        assert exact_emd(a, b, squared=squared) == pytest.approx(best, rel=1e-5)


def test_the_kernel_is_no_exact_emd() -> None:
    a, b = torch.randn(2, 1, 256, 3, generator=torch.Generator().manual_seed(0))
    exact = exact_emd(a[0].numpy(), b[0].numpy(), squared=True)
    assert 1.5 * exact < kernel_emd(a, b).item() < 5 * exact


def test_emd_refuses_clouds_of_different_size() -> None:
    with pytest.raises(InputError, match="clouds of 4 and 5 points"):
        exact_emd(np.zeros((4, 3)), np.zeros((5, 3)), squared=True)
    with pytest.raises(InputError, match="clouds of 4 and 5 points"):
        kernel_emd(torch.zeros(1, 4, 3), torch.zeros(1, 5, 3))


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("outlier", [0.0, 1e5])
def test_bounds_are_below_the_distances_and_not_far(power: int, outlier: float) -> None:
    given = clouds(12, points=200)
    given[0, 0] += outlier
    trees = [PointTree(cloud) for cloud in given]
    exact = np.array([[(b.nearest(a.points) ** power).mean() for b in trees] for a in trees])
    bounds = CellGrid.of(given).bounds(trees, power=power)
    assert (bounds <= exact + 1e-9).all()
    if not outlier:
        others = ~np.eye(12, dtype=bool)
        assert (bounds / np.where(others, exact, 1.0))[others].mean() > 0.4


@pytest.mark.parametrize("distance", [CD, L2], ids=lambda distance: distance.metric)
def test_neighbours_are_those_of_all_pairs(distance: Distance) -> None:
    given, is_reference = clouds(60), references(60)
    everything = nearest_distances(given, is_reference, distance, bounded=False)
    settled: list[int] = []
    found = nearest_distances(given, is_reference, distance, on_pairs=settled.append)
    assert sum(settled) == 60 * 59 // 2
    assert np.isfinite(everything).sum() == 60 * 59
    assert np.isfinite(found).sum() < 0.8 * 60 * 59
    for members in (is_reference, ~is_reference):
        np.testing.assert_array_equal(found[:, members].argmin(1), everything[:, members].argmin(1))
        np.testing.assert_array_equal(found[:, members].min(1), everything[:, members].min(1))


def test_twins_are_found_at_distance_zero() -> None:
    given, is_reference = clouds(40), references(40)
    given[30] = given[3]
    found = nearest_distances(given, is_reference, CD)
    assert found[3, 30] == 0.0
    assert found[3].argmin() == 30
    assert np.isinf(np.diag(found)).all()


def test_tiles_that_are_stored_are_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, is_reference = clouds(40), references(40)
    store = TileStore.of(tmp_path, given, CD)
    first = nearest_distances(given, is_reference, CD, store=store)
    assert len(list(store.folder.iterdir())) > 2

    def refuse(*_: object) -> float:
        raise AssertionError("computed again")

    monkeypatch.setattr("polydit.pointgen.evaluate.distance.chamfer_distance", refuse)
    np.testing.assert_array_equal(nearest_distances(given, is_reference, CD, store=store), first)


def test_other_clouds_or_another_distance_have_another_store(tmp_path: Path) -> None:
    folders = {
        TileStore.of(tmp_path, given, distance).folder
        for given in (clouds(3), clouds(3, seed=1))
        for distance in (CD, L2, Distance("emd", 32, variant="exact-squared"))
    }
    assert len(folders) == 6


def test_worker_processes_give_the_same(tmp_path: Path) -> None:
    given, is_reference = clouds(36), references(36)
    alone = nearest_distances(given, is_reference, CD)
    np.testing.assert_array_equal(nearest_distances(given, is_reference, CD, workers=2), alone)


def test_an_unwritable_store_is_an_error_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PolyditError, match="could not write"):
        TileStore.of(tmp_path / "file", clouds(2), CD)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_neighbours() -> None:
    given, is_reference = clouds(60), references(60)
    on_gpu = nearest_distances(given, is_reference, Distance("cd", 32, device="cuda:0"))
    on_cpu = nearest_distances(given, is_reference, CD)
    for members in (is_reference, ~is_reference):
        np.testing.assert_allclose(on_gpu[:, members].min(1), on_cpu[:, members].min(1), atol=1e-6)
