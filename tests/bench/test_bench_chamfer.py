"""The bench of 1-NNA-CD at a small size: both sides agree, and every figure comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from polydit.bench import chamfer
from polydit.bench.cli import polydit_bench


def test_both_sides_compute_the_same() -> None:
    clouds = chamfer.shapes("chair", 3)
    pairs = [(0, 1), (0, 2), (1, 2)]
    ours = chamfer.tree_chamfer(clouds, pairs)
    np.testing.assert_allclose(ours, chamfer.plain_chamfer(clouds, pairs), rtol=1e-4)
    np.testing.assert_allclose(ours, chamfer.amin_chamfer(clouds, pairs), rtol=1e-4)


def test_the_command(invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chamfer, "POINTS", 256)
    monkeypatch.setattr(chamfer, "ROUNDS", 2)
    done = invoke(
        polydit_bench, "pointgen", "--only", "chamfer", "--clouds", 16, "--workers", 1, "--out", "results"
    )
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [row["key"] for row in rows] == [
        "chamfer pair",
        "1-nna-cd time",
        "1-nna-cd time, amin",
        "1-nna-cd wall time",
    ]
    assert all(row["value"] > 0 for row in rows)
    assert rows[1]["details"]["pairs"] == 32 * 31 // 2
    assert 0 <= rows[1]["details"]["1-nna-cd"] <= 1
