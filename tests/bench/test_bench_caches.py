"""The bench of caches at tiny sizes: all families run, leave no trace, and the figures follow from the points."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from polydit.bench import cache_contestants, caches
from polydit.bench.cache_contestants import CACHE_DIT, DIFFUSERS, OURS, contestants, has_cache_dit
from polydit.bench.cache_subjects import Subject, flux_subject, toy_subject
from polydit.bench.caches import Point, front, moved_at
from polydit.bench.cli import polydit_bench
from polydit.bench.plots import row_plot
from polydit.bench.rows import Row
from polydit.bench.toy_dit import Toy, pictures, toy_dit

TINY = Toy(width=16, depth=3, heads=2, steps=2, batch=4)
STEPS = 6


def make_toy(out: Path | None) -> Subject:
    """The toy, with weights as large as after a training that is worth the name."""
    subject = toy_subject(out, TINY, items=2, num_steps=STEPS)
    generator = torch.Generator().manual_seed(0)
    for parameter in subject.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return subject


@pytest.fixture(autouse=True)
def coarse_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred steps are not needed to tell that figures come out."""
    monkeypatch.setattr(caches, "REFERENCE", ("ab3", 8))


def point(time: float, moved: float, name: str = "") -> Point:
    return Point(family=OURS, name=name, time=time, moved=moved, error=moved)


def test_a_front_holds_what_nothing_beats() -> None:
    points = [point(0.5, 0.1), point(0.3, 0.2), point(0.4, 0.3), point(0.6, 0.1), point(0.2, math.inf)]
    assert [(p.time, p.moved) for p in front(points)] == [(0.3, 0.2), (0.5, 0.1)]


def test_a_front_is_read_between_its_points() -> None:
    best = front([point(0.2, 0.1), point(0.4, 0.001)])
    assert moved_at(best, 0.1) is None
    assert moved_at(best, 0.2) == pytest.approx(0.1)
    assert moved_at(best, 0.3) == pytest.approx(0.01)
    assert moved_at(best, 0.9) == pytest.approx(0.001)


def test_pictures_differ_by_class_and_place() -> None:
    labels = torch.tensor([0, 1, 2, 3, 0])
    images = pictures(labels, torch.Generator().manual_seed(0))
    assert images.shape == (5, 3, 16, 16) and images.abs().max() <= 1
    assert images.flatten(1).std(dim=1).min() > 0.01
    assert not torch.equal(images[0], images[4])


def test_the_toy_is_trained_once(tmp_path: Path) -> None:
    first = toy_dit(TINY, tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    again = toy_dit(TINY, tmp_path)
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    for one, other in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    assert any(value.abs().max() > 0 for value in first.final.parameters())  # zero before training


@pytest.mark.parametrize("name", ["dit", "flux"])
def test_contestants_repeat_themselves_and_leave_the_network_alone(name: str) -> None:
    tried = make_toy(None) if name == "dit" else flux_subject(items=1, num_steps=STEPS)
    uncached = tried.sample()
    chosen = [one for one in contestants(tried, quick=True) if one.family in (OURS, DIFFUSERS, CACHE_DIT)]
    for one in {(one.family, one.name.partition(" ")[0]): one for one in chosen}.values():
        first = one.run()
        assert torch.equal(first, one.run()), one.name
        assert torch.isfinite(first).all()
        if "every" in one.name:  # by a threshold, all steps may be full
            assert not torch.equal(first, uncached), one.name
    assert torch.equal(tried.sample(), uncached)
    expected = {OURS, DIFFUSERS, CACHE_DIT} if has_cache_dit() else {OURS, DIFFUSERS}
    assert {one.family for one in chosen} == expected


@pytest.mark.skipif(not has_cache_dit(), reason="cache-dit is an extra")
@pytest.mark.parametrize("name", ["dit", "flux"])
def test_cache_dit_that_skips_nothing_changes_nothing(name: str) -> None:
    """Otherwise its errors would be those of how it was put on the network."""
    tried = make_toy(None) if name == "dit" else flux_subject(items=1, num_steps=STEPS)
    network = cache_contestants._with_cache_dit(tried, {"residual_diff_threshold": 0.0}, None)
    moved = cache_contestants._run_cache_dit(tried, network) - tried.sample()
    assert moved.abs().max() < 1e-5


def test_the_command(invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "toy_subject", make_toy)
    done = invoke(polydit_bench, "caches", "--quick", "--only", "dit", "--out", "results")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [row["key"] for row in rows] == [
        "caches DiT ours over cache-dit",
        "caches DiT ours over diffusers",
        "caches DiT newton over taylor modules",
        "caches DiT newton over taylor after block 1",
        "caches DiT twice the error",
    ]
    assert rows[2]["value"] > 0
    assert (tmp_path / "results" / "caches-DiT-ours-over-diffusers.svg").is_file()
    assert list((tmp_path / "results").glob("toy-dit-*/config.json"))


def test_without_cache_dit_its_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "has_cache_dit", lambda: False)
    compared = caches.Comparison(
        subject=flux_subject(items=1, num_steps=STEPS), points=(), error=0.1, rounds=1, seconds=1.0
    )
    row = caches._against(compared, CACHE_DIT, asked=0.8, aim=0.5)
    assert row.value is None and "pip install" in row.how and row.reached == ""


def test_rows_without_fronts_have_no_picture() -> None:
    assert row_plot(Row(key="k", what="w", value=1.0, unit="×", how="h")) is None
