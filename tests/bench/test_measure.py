"""The measuring itself: order of rounds, ratios, children, and what a row says about its figure."""

from __future__ import annotations

import sys
import time

import pytest

from polydit.bench.measure import interleave, paired_ratio, run_child, threads
from polydit.bench.rows import Row


def test_rounds_are_interleaved_after_the_warm_up() -> None:
    order: list[str] = []
    timings = interleave(
        {"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warm_up=2
    )
    assert "".join(order) == "aabb" + "ababab"
    assert {name: len(t.wall) for name, t in timings.items()} == {"a": 3, "b": 3}


def test_waiting_is_wall_time_and_working_is_cpu_time() -> None:
    waiting = interleave({"wait": lambda: time.sleep(0.05)}, rounds=3, warm_up=0)["wait"]
    working = interleave({"work": lambda: sum(range(400_000))}, rounds=3, warm_up=0)["work"]
    assert waiting.median >= 0.05 > 5 * waiting.median_cpu
    assert 0 < working.median_cpu <= 1.5 * working.median


def test_a_ratio_is_taken_round_by_round() -> None:
    """The machine was twice as slow in the second round; that says nothing about either side."""
    assert paired_ratio([1.0, 2.0, 1.0], [2.0, 4.0, 2.0]) == 0.5


def test_threads_are_given_back() -> None:
    import torch

    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_child_tells_its_own_peak() -> None:
    small, large = (
        run_child([sys.executable, "-c", f"x = bytearray({size})"]).peak_megabytes
        for size in (1, 200_000_000)
    )
    assert 150 < large - small < 250


def test_a_failed_child_is_an_error_with_its_words() -> None:
    line = [sys.executable, "-c", "import sys; sys.exit('no such luck')"]
    with pytest.raises(RuntimeError, match="no such luck"):
        run_child(line)
    assert run_child(line, accepted=(1,)).seconds > 0


@pytest.mark.parametrize(
    ("value", "more_is_better", "reached"),
    [
        (0.7, False, "aim"),
        (0.9, False, "asked"),
        (1.1, False, "missed"),
        (1.1, True, "aim"),
        (None, True, ""),
    ],
)
def test_a_row_says_what_was_reached(value: float | None, more_is_better: bool, reached: str) -> None:
    asked, aim = (0.5, 1.0) if more_is_better else (1.0, 0.8)
    row = Row(
        key="k", what="w", value=value, unit="×", how="h", asked=asked, aim=aim, more_is_better=more_is_better
    )
    assert row.reached == reached
    assert row.record()["reached"] == reached
    assert row.line()["measured"] == ("not measured" if value is None else f"{value} ×")


def test_a_child_does_not_inherit_the_peak_of_this_process() -> None:
    """Linux carries the peak across exec: without a small process in between, pytest's own would be measured."""
    ballast = bytearray(300_000_000)
    peak = run_child([sys.executable, "-c", ""]).peak_megabytes
    assert len(ballast) > 0 and 2 < peak < 100


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(RuntimeError, match="did not start"):
        run_child(["/no/such/program"])
