"""Statistics of data sets: by the known rules, exact over episodes but for quantiles, written, read and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.robopolicy.data.readers import read_dataset
from polydit.robopolicy.data.statistics import (
    NAMES,
    PictureCounts,
    Statistics,
    aggregate,
    number_statistics,
)


def test_statistics_of_numbers() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 3))
    found = number_statistics(rows)
    assert set(found) == set(NAMES)
    assert np.allclose(found["mean"], rows.mean(axis=0)) and np.allclose(found["std"], rows.std(axis=0))
    assert np.allclose(found["q01"], np.quantile(rows, 0.01, axis=0))
    assert found["count"].tolist() == [500]
    assert number_statistics(np.arange(5))["q50"].tolist() == [2]
    assert number_statistics(np.ones((4, 2, 3)))["max"].shape == (3,)


def test_statistics_add_up() -> None:
    """Exact but for quantiles, however the episodes are cut; of quantiles an estimate between the episodes'."""
    rng = np.random.default_rng(1)
    parts = [rng.normal(loc=k, scale=1 + k, size=(n, 2)) for k, n in enumerate((10, 200, 3))]
    whole, added = number_statistics(np.concatenate(parts)), aggregate([number_statistics(p) for p in parts])
    for name in ("min", "max", "mean", "std", "count"):
        assert np.allclose(whole[name], added[name])
    middles = np.stack([number_statistics(part)["q50"] for part in parts])
    assert (added["q50"] >= middles.min(axis=0)).all() and (added["q50"] <= middles.max(axis=0)).all()
    without = [{k: v for k, v in number_statistics(p).items() if not k.startswith("q")} for p in parts]
    assert "q50" not in aggregate(without)


def test_statistics_of_pictures_are_exact_over_episodes() -> None:
    pictures = np.random.default_rng(2).integers(20, 240, (6, 8, 10, 3), dtype=np.uint8)
    first, second = PictureCounts(), PictureCounts()
    for k, picture in enumerate(pictures):
        (first if k < 2 else second).add(picture)
    found = (first + second).statistics()
    values = pictures.reshape(-1, 3) / 255.0
    assert found["mean"].shape == (3, 1, 1) and found["count"].tolist() == [6]
    for name, expected in (
        ("min", values.min(axis=0)), ("max", values.max(axis=0)), ("mean", values.mean(axis=0)),
        ("std", values.std(axis=0)), ("q10", np.quantile(values, 0.1, axis=0, method="inverted_cdf")),
        ("q99", np.quantile(values, 0.99, axis=0, method="inverted_cdf")),
    ):  # fmt: skip
        assert np.allclose(found[name].reshape(3), expected), name


def test_statistics_go_through_json() -> None:
    found = Statistics({"action": number_statistics(np.random.default_rng(3).normal(size=(9, 2)))})
    back = Statistics.from_json(json.loads(json.dumps(found.to_json())))
    assert all(np.array_equal(back["action"][name], found["action"][name]) for name in NAMES)
    with pytest.raises(InputError, match="not statistics"):
        Statistics.from_json({"action": {"mean": ["a"]}})


# ---------------------------------------------------------------------------------------------------------
# Of a data set.


def test_v3_statistics(toy: Any, v3: Path) -> None:
    stats = json.loads((v3 / "meta/stats.json").read_text())
    action = np.concatenate([toy.episode(e).action for e in range(4)]).astype(np.float64)
    assert set(stats["action"]) == set(NAMES)
    assert stats["action"]["count"] == [21]
    assert np.allclose(stats["action"]["std"], action.std(axis=0))
    assert np.allclose(stats["action"]["q10"], np.quantile(action, 0.1, axis=0))
    assert stats["frame_index"]["max"] == [8] and stats["next.success"]["max"] == [True]
    wrist = np.concatenate([np.stack(list(toy.episode(e).images["wrist"])) for e in range(4)]) / 255.0
    found = stats[toy.still]
    assert np.shape(found["mean"]) == (3, 1, 1)
    assert np.allclose(np.ravel(found["mean"]), wrist.mean(axis=(0, 1, 2)))
    assert np.allclose(np.ravel(found["std"]), wrist.std(axis=(0, 1, 2)))
    assert np.allclose(np.ravel(found["q50"]), np.quantile(wrist, 0.5, axis=(0, 1, 2)), atol=1 / 255)
    assert found["count"] == [21]


def test_statistics_of_both_versions(toy: Any, v3: Path, v21: Path) -> None:
    """v2.1 has no quantiles: they are measured."""
    new, old = read_dataset(v3).statistics, read_dataset(v21).statistics
    for name in NAMES:
        assert np.allclose(new["action"][name], old["action"][name])
        assert new["action"][name].dtype == np.float64
    assert np.allclose(new[toy.film]["mean"], old[toy.film]["mean"])


def test_statistics_that_do_not_fit(states: Path) -> None:
    path = states / "meta/stats.json"
    stats = json.loads(path.read_text())
    path.write_text(json.dumps(stats | {"action": {**stats["action"], "mean": [0.0, 0.0, 0.0]}}))
    with pytest.raises(InputError, match=r"statistic mean of action has the shape \[3\]; expected \[2\]"):
        read_dataset(states)
    path.write_text(json.dumps(stats | {"action": {**stats["action"], "std": [float("nan"), 1.0]}}))
    with pytest.raises(InputError, match="statistic std of action is no finite number"):
        read_dataset(states)
    path.write_text("[1]")
    with pytest.raises(InputError, match="not statistics by feature"):
        read_dataset(states)
    path.unlink()  # then they are measured
    assert np.allclose(read_dataset(states).statistics["action"]["q99"], stats["action"]["q99"])
