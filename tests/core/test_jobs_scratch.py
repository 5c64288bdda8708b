"""Items that take long: what they keep while they work, and files that are finished on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from polydit.core.jobs import ItemFailure, ItemResult, RunFolder, read_run, scratch_folder


class Option(NamedTuple):
    value: Any
    source: str = "default"


def open_run(out: Path, *, overwrite: bool = False, seed: int = 0) -> RunFolder:
    options = {"seed": Option(seed)}
    return RunFolder.open(out, command="demo run", options=options, provenance={}, overwrite=overwrite)


def worked(out: Path, item_id: str, content: bytes = b"a long file") -> Path:
    """A file that an item has made beside others in its scratch folder."""
    folder = scratch_folder(out, item_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal").write_bytes(b"1101")
    (folder / "finished.bin").write_bytes(content)
    return folder / "finished.bin"


def result(item_id: str, path: Path) -> ItemResult:
    return ItemResult(id=item_id, index=0, seed=0, files={".bin": path, ".txt": b"short"})


def failed(item_id: str) -> ItemFailure:
    return ItemFailure(id=item_id, index=1, seed=1, error="ValueError", message="broken")


def commit(folder: RunFolder, outcomes: Sequence[ItemResult | ItemFailure]) -> None:
    with folder:
        folder.commit(outcomes)


def test_a_finished_file_is_moved_and_recorded_like_bytes(tmp_path: Path) -> None:
    out, content = tmp_path / "run", b"0123456789" * 1000
    folder = open_run(out)
    path = worked(out, "slide 1", content)
    commit(folder, [result("slide 1", path)])
    record = next(read_run(out).finished())
    (binary, _) = record["outputs"]
    assert (binary["bytes"], binary["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (out / binary["path"]).read_bytes() == content
    assert not path.exists()


def test_scratch_goes_when_its_item_is_finished_and_stays_when_it_failed(tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = open_run(out)
    path = worked(out, "a")
    worked(out, "b")
    commit(folder, [result("a", path), failed("b")])
    assert not scratch_folder(out, "a").exists()
    assert (scratch_folder(out, "b") / "journal").exists()
    with open_run(out) as again:
        again.commit([result("b", scratch_folder(out, "b") / "finished.bin")])
    assert not (out / "scratch").exists()


def test_scratch_left_behind_a_line_by_a_kill_goes_at_the_next_call(tmp_path: Path) -> None:
    out = tmp_path / "run"
    commit(open_run(out), [ItemResult(id="a", index=0, seed=0, files={".txt": b"short"})])
    worked(out, "a")
    worked(out, "b")
    with open_run(out):
        assert not scratch_folder(out, "a").exists()
        assert scratch_folder(out, "b").exists()


def test_overwrite_discards_scratch(tmp_path: Path) -> None:
    out = tmp_path / "run"
    commit(open_run(out), [failed("b")])
    worked(out, "b")
    with open_run(out, overwrite=True, seed=1):
        assert not (out / "scratch").exists()


def test_an_ending_that_leaves_the_folder_is_refused_for_files_too(tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = open_run(out)
    path = worked(out, "a")
    with pytest.raises(AssertionError, match="leaves the run folder"):
        commit(folder, [ItemResult(id="a", index=0, seed=0, files={"/../../x": path})])
    assert path.exists()
