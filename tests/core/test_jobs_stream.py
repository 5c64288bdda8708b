"""The loop over items that are worked on side by side: each outcome is on the disk as soon as it is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from polydit.core.errors import PolyditError
from polydit.core.jobs import ItemFailure, ItemResult, ManifestRecord, RunFolder, Tally, run_stream

Outcome = ItemResult | ItemFailure


@dataclass(frozen=True)
class Item:
    index: int

    @property
    def id(self) -> str:
        return f"item-{self.index}"

    @property
    def seed(self) -> int:
        return 100 + self.index


class Work:
    """Does items in pairs, the second first, both together or one by one; `bad` ones fail, at `stop` it ends."""

    def __init__(
        self, bad: frozenset[int] = frozenset(), stop: int | None = None, *, together: bool = False
    ) -> None:
        self.bad, self.stop, self.together, self.seen = bad, stop, together, list[int]()

    def __call__(self, items: Iterator[Item]) -> Iterator[Sequence[Outcome]]:
        for item in items:
            pair = [*[other for other in [next(items, None)] if other], item]
            if self.together:
                yield list(map(self._outcome, pair))
            else:
                yield from ([self._outcome(one)] for one in pair)

    def _outcome(self, item: Item) -> Outcome:
        self.seen.append(item.index)
        if item.index == self.stop:
            raise KeyboardInterrupt
        if item.index in self.bad:
            return ItemFailure(id=item.id, index=item.index, seed=item.seed, error="Bad", message="it is bad")
        files = {".txt": f"{item.index}\n".encode()}
        return ItemResult(id=item.id, index=item.index, seed=item.seed, files=files, seconds=1.5)


def open_run(out: Path) -> RunFolder:
    return RunFolder.open(out, command="demo run", options={}, provenance={})


@pytest.mark.parametrize("together", [False, True])
def test_outcomes_are_committed_as_they_come(tmp_path: Path, together: bool) -> None:
    told: list[ManifestRecord] = []
    with open_run(tmp_path) as folder:
        tally = run_stream(map(Item, range(5)), Work(together=together), folder, on_record=told.append)
    assert tally == Tally(ok=5)
    assert [record["index"] for record in told] == [1, 0, 3, 2, 4]
    assert {record["seconds"] for record in told} == {1.5}  # as the work says, not as the loop measures
    assert sorted(path.name for path in folder.items.iterdir()) == [f"item-{i}.txt" for i in range(5)]


def test_an_interruption_keeps_what_was_known_and_a_rerun_does_the_rest(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path) as folder:
        run_stream(map(Item, range(6)), Work(stop=2), folder)
    again = Work()
    with open_run(tmp_path) as folder:
        assert folder.finished == ["item-0", "item-1", "item-3"]
        assert run_stream(map(Item, range(6)), again, folder) == Tally(ok=3, kept_ok=3)
    assert sorted(again.seen) == [2, 4, 5]


def test_items_are_drawn_as_the_work_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(tmp_path) as folder:
        run_stream(map(Item, count()), Work(stop=10), folder)  # an endless input


def test_failures_are_kept_unless_they_are_to_be_retried(tmp_path: Path) -> None:
    bad = Work(bad=frozenset({1, 2}))
    with open_run(tmp_path) as folder:
        assert run_stream(map(Item, range(4)), bad, folder) == Tally(ok=2, failed=2)
        assert run_stream(map(Item, range(4)), Work(), folder) == Tally(kept_ok=2, kept_failed=2)
        assert run_stream(map(Item, range(4)), Work(), folder, retry_failed=True) == Tally(ok=2, kept_ok=2)


def test_fail_fast_stops_after_recording(tmp_path: Path) -> None:
    with pytest.raises(PolyditError, match="item-1: it is bad"), open_run(tmp_path) as folder:
        run_stream(map(Item, range(4)), Work(bad=frozenset({1})), folder, fail_fast=True)
    with open_run(tmp_path) as folder:
        assert (folder.finished, folder.failed) == ([], ["item-1"])
