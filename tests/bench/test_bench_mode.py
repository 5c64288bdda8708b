"""The bench of MoDE at a tiny size: every figure comes out, and the cache is what it says it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from polydit.bench import mode
from polydit.bench.cli import polydit_bench
from polydit.bench.plots import rounds_plot

TINY = mode.Size(width=32, depth=2, heads=2)


def test_cache_rows() -> None:
    difference, time = mode.cache_rows(quick=True, size=TINY)
    assert difference.value is not None and 0 < difference.value <= 1e-5 and difference.reached == "asked"
    assert time.value is not None and 0.05 < time.value < 3 and "MB" in time.how
    picture = rounds_plot(time)
    assert picture is not None and picture.startswith("<svg")


def test_dense_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode, "TRAINING_BATCH", 4)
    parameters, *timed = mode.dense_rows(quick=True, size=TINY)
    assert parameters.value is not None and 0.5 < parameters.value < 0.8
    assert [row.key for row in timed] == [
        "chunk, routed",
        "chunk, routed without the cache",
        "training step, routed",
    ]
    assert all(row.value is not None and 0.05 < row.value < 20 for row in timed)


def test_noise_levels_differ_in_their_experts() -> None:
    """Otherwise the cache would hold less than it does in a trained network."""
    policy = mode.MoDEPolicy(TINY.network())
    policy.sample(mode._batch(1), mode._noise(1))
    assert len(policy.cache._fused) > 2


def test_the_command(invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode, "Size", lambda: TINY)
    done = invoke(polydit_bench, "mode", "--quick", "--only", "cache", "--out", "results")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [row["key"] for row in rows] == ["cache difference", "cache time"]
