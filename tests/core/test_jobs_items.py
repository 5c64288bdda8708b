"""The loop over items: failures, memory, resume, a full disk, and a kill at every single write."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from polydit.core.errors import CheckpointError, MissingExtraError, PolyditError
from polydit.core.jobs import (
    DiskFullError,
    ItemFailure,
    ItemResult,
    ManifestRecord,
    RunFolder,
    Tally,
    is_out_of_memory,
    run_batches,
)

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


def batches(total: int, size: int) -> list[list[Item]]:
    return [[Item(i) for i in range(s, min(s + size, total))] for s in range(0, total, size)]


def done(item: Item) -> ItemResult:
    files = {".txt": f"{item.index}\n".encode()}
    return ItemResult(id=item.id, index=item.index, seed=item.seed, files=files)


class Work:
    """Does the items, remembers the batches, and raises where `trouble` returns an error."""

    def __init__(self, trouble: Callable[[Sequence[Item]], Exception | None] = lambda batch: None) -> None:
        self.trouble, self.calls = trouble, list[list[int]]()

    def __call__(self, batch: Sequence[Item]) -> list[Outcome]:
        self.calls.append([item.index for item in batch])
        if error := self.trouble(batch):
            raise error
        return [done(item) for item in batch]


def open_run(out: Path) -> RunFolder:
    return RunFolder.open(out, command="demo run", options={}, provenance={})


def numbers(folder: RunFolder) -> tuple[list[int], list[int]]:
    return [int(i[5:]) for i in folder.finished], [int(i[5:]) for i in folder.failed]


def test_every_item_is_made_once_and_told(tmp_path: Path) -> None:
    told: list[ManifestRecord] = []
    with open_run(tmp_path) as folder:
        tally = run_batches(batches(5, 2), Work(), folder, on_record=told.append)
    assert tally == Tally(ok=5)
    assert tally.exit_code == 0
    assert [record["index"] for record in told] == [0, 1, 2, 3, 4]
    assert all(record["peak_memory_mb"] > 0 for record in told)
    for index in range(5):
        assert (tmp_path / "items" / f"item-{index}.txt").read_text() == f"{index}\n"


def test_what_is_done_is_left_alone(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        run_batches(batches(4, 2), Work(), folder)
        before = {p: p.stat().st_mtime_ns for p in folder.items.iterdir()}
        work = Work()
        tally = run_batches(batches(6, 2), work, folder)
        assert (work.calls, tally) == ([[4, 5]], Tally(ok=2, kept_ok=4))
        assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_batch_that_was_cut_is_computed_whole_and_committed_in_part(tmp_path: Path) -> None:
    work = Work()
    with open_run(tmp_path) as folder:
        folder.commit([done(Item(0)), done(Item(2))])
        tally = run_batches(batches(4, 4), work, folder)
        assert (work.calls, tally) == ([[0, 1, 2, 3]], Tally(ok=2, kept_ok=2))
    assert len((tmp_path / "manifest.jsonl").read_text().splitlines()) == 4


def test_one_bad_item_fails_alone(tmp_path: Path) -> None:
    work = Work(lambda batch: ValueError("three is bad") if Item(3) in batch else None)
    with open_run(tmp_path) as folder:
        tally = run_batches(batches(8, 4), work, folder)
        assert numbers(folder) == ([0, 1, 2, 4, 5, 6, 7], [3])
        assert work.calls == [[0, 1, 2, 3], [0], [1], [2], [3], [4, 5, 6, 7]]
        record = folder.manifest.read("item-3")
    assert record.get("error") == {"type": "ValueError", "message": "three is bad"}
    assert (tally, tally.exit_code) == (Tally(ok=7, failed=1), 3)


def test_a_failure_that_is_returned_costs_the_others_nothing(tmp_path: Path) -> None:
    def work(batch: Sequence[Item]) -> list[Outcome]:
        bad = ItemFailure(id="item-1", index=1, seed=101, error="absurd", message="negative length")
        return [bad if item.index == 1 else done(item) for item in batch]

    with open_run(tmp_path) as folder:
        assert run_batches(batches(3, 3), work, folder) == Tally(ok=2, failed=1)
        assert numbers(folder) == ([0, 2], [1])


def test_failed_items_are_tried_again_only_when_asked(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        run_batches(batches(3, 1), Work(lambda b: ValueError("x") if b[0].index == 1 else None), folder)
        again = Work()
        tally = run_batches(batches(3, 1), again, folder)
        assert (again.calls, tally, tally.exit_code) == ([], Tally(kept_ok=2, kept_failed=1), 3)
        tally = run_batches(batches(3, 1), again, folder, retry_failed=True)
        assert (again.calls, tally, tally.exit_code) == ([[1]], Tally(ok=1, kept_ok=2), 0)
        assert folder.manifest.read("item-1")["attempt"] == 2


def test_all_failed_is_a_failed_run(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        tally = run_batches(batches(3, 2), Work(lambda batch: ValueError("x")), folder)
    assert (tally, tally.exit_code) == (Tally(failed=3), 1)


def test_fail_fast_stops_after_recording(tmp_path: Path) -> None:
    work = Work(lambda batch: ValueError("bad one") if Item(1) in batch else None)
    with open_run(tmp_path) as folder:
        with pytest.raises(PolyditError, match="item item-1: bad one") as caught:
            run_batches(batches(6, 2), work, folder, fail_fast=True)
        assert caught.value.exit_code == 1
        assert numbers(folder) == ([0], [1])


@pytest.mark.parametrize("error", [MissingExtraError("x", "y", purpose="z"), CheckpointError("torn")])
def test_an_error_of_the_run_is_not_blamed_on_an_item(error: PolyditError, tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        with pytest.raises(type(error)):
            run_batches(batches(2, 1), Work(lambda batch: error), folder)
        assert numbers(folder) == ([], [])


class OutOfMemoryError(RuntimeError):
    """As torch names it, for CUDA and since 2.5 for every device."""


MEMORY_ERRORS = [
    MemoryError(),
    OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    RuntimeError("MPS backend out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=str)
def test_memory_that_runs_out_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_torch_raises_what_is_recognised() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.float64)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_out_of_memory_halves_this_batch_and_the_later_ones(tmp_path: Path) -> None:
    work = Work(lambda batch: MemoryError() if len(batch) > 3 else None)
    with open_run(tmp_path) as folder:
        tally = run_batches(batches(16, 8), work, folder)
        assert numbers(folder) == (list(range(16)), [])
    assert tally == Tally(ok=16)
    tried_in_vain = [call for call in work.calls if len(call) > 3]
    assert tried_in_vain == [list(range(8)), list(range(4))]  # the second batch starts at a size that fits


def test_out_of_memory_goes_by_weight_not_by_number(tmp_path: Path) -> None:
    def tokens(batch: Sequence[Item]) -> int:
        return len(batch) * (10 if batch[0].index < 4 else 1)

    work = Work(lambda batch: MemoryError() if tokens(batch) > 20 else None)
    with open_run(tmp_path) as folder:
        run_batches([*batches(4, 4), [Item(i) for i in range(4, 20)]], work, folder, weight=tokens)
    assert work.calls == [[0, 1, 2, 3], [0, 1], [2, 3], list(range(4, 20))]


def test_an_item_too_large_for_memory_fails_alone(tmp_path: Path) -> None:
    work = Work(lambda batch: MemoryError() if Item(1) in batch else None)
    with open_run(tmp_path) as folder:
        run_batches(batches(4, 4), work, folder)
        assert numbers(folder) == ([0, 2, 3], [1])
        record = folder.manifest.read("item-1")
    assert record.get("error") == {"type": "MemoryError", "message": "MemoryError"}


def test_an_interruption_keeps_what_was_committed(tmp_path: Path) -> None:
    def work(batch: Sequence[Item]) -> list[Outcome]:
        if batch[0].index == 2:
            raise KeyboardInterrupt
        return [done(item) for item in batch]

    with pytest.raises(KeyboardInterrupt), open_run(tmp_path) as folder:
        run_batches(batches(6, 2), work, folder)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "interrupted"
    with open_run(tmp_path) as folder:
        assert run_batches(batches(6, 2), Work(), folder) == Tally(ok=4, kept_ok=2)


# ---------------------------------------------------------------------------------------------------------
# A full disk: really full where a file system of our own may be mounted, and by the limit on a file's size.


def test_a_full_disk_inside_the_work_is_named(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder, pytest.raises(DiskFullError):
        run_batches(batches(2, 1), Work(lambda batch: OSError(errno.ENOSPC, "No space left")), folder)


@pytest.mark.parametrize("limit", [600, 1500, 4000])
def test_a_write_that_hits_a_limit_stops_the_run_and_keeps_the_rest(limit: int, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with open_run(tmp_path) as folder:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(DiskFullError, match="the disk is full"):
                run_batches(batches(40, 2), Work(), folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        kept = len(folder.finished)
    lines = (tmp_path / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == kept == len([json.loads(line) for line in lines])
    assert kept % 2 == 0 and kept < 40
    with open_run(tmp_path) as folder:
        assert run_batches(batches(40, 2), Work(), folder) == Tally(ok=40 - kept, kept_ok=kept)
    assert len((tmp_path / "manifest.jsonl").read_bytes().splitlines()) == 40


def test_a_full_file_system_stops_the_run_and_keeps_the_rest(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(mount, capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a file system here")
    try:
        ballast = tmp_path / "ballast"
        with pytest.raises(DiskFullError, match="Free some space"), open_run(tmp_path / "run") as folder:
            ballast.write_bytes(b"x" * 60_000)
            run_batches(batches(60, 4), Work(), folder)
        kept = len(folder.finished)
        assert 0 < kept < 60
        ballast.unlink()
        assert not list((tmp_path / "run").rglob("*.tmp*"))
        with open_run(tmp_path / "run") as folder:
            tally = run_batches(batches(24, 4), Work(), folder)
        assert tally.kept_ok == min(kept, 24) and tally.ok == 24 - tally.kept_ok
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


# ---------------------------------------------------------------------------------------------------------
# kill -9 at every write: the child counts its write calls and kills itself before the n-th, or in its middle.

KILLED_RUN = """
import os, signal, sys, threading
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from test_jobs_items import Work, batches, open_run, run_batches

out, last, half = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "half"
calls, lock = "", threading.Lock()

def deadly(function):
    def call(*arguments):
        global calls
        with lock:
            calls += "w" if function is write else "-"
            if len(calls) == last:
                if half and function is write:
                    write(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call

write = os.write
os.write, os.fsync, Path.replace = deadly(os.write), deadly(os.fsync), deadly(Path.replace)
with open_run(out) as folder:
    run_batches(batches(5, 2), Work(), folder)
print(calls)
"""


def killed_run(out: Path, call: int, how: str) -> subprocess.CompletedProcess[str]:
    arguments = [str(out), str(call), how, str(Path(__file__).parent)]
    return subprocess.run([sys.executable, "-c", KILLED_RUN, *arguments], capture_output=True, text=True)


def content(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in (out / "items").rglob("*")}


def test_a_kill_at_any_write_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    whole = killed_run(tmp_path / "whole", 0, "before")
    assert whole.returncode == 0, whole.stderr
    expected = content(tmp_path / "whole")
    assert len(expected) == 5
    calls = list(enumerate(whole.stdout.strip(), start=1))
    torn = [(call, "half") for call, kind in calls if kind == "w"]
    assert len(calls) > 20 and len(torn) == 4  # the owner of the lock, and three batches
    for call, how in [(call, "before") for call, _ in calls] + torn:
        out = tmp_path / f"{call}-{how}"
        killed = killed_run(out, call, how)
        assert killed.returncode == -9, (call, how, killed.stderr)
        with open_run(out) as folder:
            done_before = folder.finished
            tally = run_batches(batches(5, 2), Work(), folder)
        assert tally == Tally(ok=5 - len(done_before), kept_ok=len(done_before)), (call, how)
        assert content(out) == expected, (call, how)
        lines = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
        assert sorted(line["id"] for line in lines) == [f"item-{i}" for i in range(5)], (call, how)
