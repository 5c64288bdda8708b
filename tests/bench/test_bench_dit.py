"""The bench of DiT at a tiny size: every figure comes out, and all sides compute the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from polydit.bench import dit_forward
from polydit.bench.cli import polydit_bench
from polydit.bench.dit_s import Size, dit_s
from polydit.bench.plots import rounds_plot, row_plot

TINY = Size(width=48, depth=2, heads=2)
FEW = (dit_forward.Work(side=4, batch=1, asked=0.7, aim=0.6),)


def test_forward_rows() -> None:
    rows = list(dit_forward.forward_rows(quick=True, size=TINY, work=FEW))
    assert [row.key for row in rows] == [
        "forward 16 tokens fp32 diffusers",
        "forward 16 tokens fp32 ours",
        "forward 16 tokens fp32 ours, modulation made before, weights packed",
    ]
    assert all(row.value is not None and row.details["deviation"] < 1e-5 for row in rows)
    assert [row.asked for row in rows] == [None, None, 0.7]
    picture = row_plot(rows[0])
    assert picture is not None and picture == rounds_plot(rows[0])


def test_work_in_bfloat16_is_near() -> None:
    """What is compiled is the same network; the compilation itself is left out here, it takes half a minute."""
    work = dit_forward.Work(side=4, batch=1, compiled=True, asked=0.24, aim=0.2)
    contestants = dit_forward._contestants(dit_s(4, TINY), work)
    name = f"{dit_forward.TABLED}, bf16, compiled"
    assert list(contestants) == ["plain", "ours in bf16, modulation made before, weights packed", name]
    plain, ours = (
        contestants["plain"](),
        contestants["ours in bf16, modulation made before, weights packed"](),
    )
    assert 0 < dit_forward._relative(ours - plain, plain) < 0.05


def test_overhead_rows() -> None:
    loop, run = dit_forward.overhead_rows(quick=True, size=TINY, side=4)
    assert loop.value is not None and 0.2 < loop.value < 20 and loop.asked == 1.03
    assert run.value is not None and run.value > 0
    assert float(run.how.rpartition(" ")[2]) < 1e-5  # ours and the plain run end at the same samples


def test_the_command(invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dit_forward, "dit_s", lambda side, size: dit_s(side, TINY))
    done = invoke(polydit_bench, "dit", "--quick", "--only", "overhead", "--out", "results")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [row["key"] for row in rows] == ["dit loop overhead", "dit sampling"]
    assert (tmp_path / "results" / "dit-sampling.svg").is_file()
