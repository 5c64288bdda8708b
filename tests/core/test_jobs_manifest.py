"""The manifest: append only, last line counts, a torn line is no line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from polydit.core.jobs import Manifest, ManifestRecord


def record(index: int, status: str = "ok", **more: object) -> ManifestRecord:
    fields: dict[str, object] = {
        "id": f"item-{index}", "index": index, "status": status, "seed": index, "attempt": 1, "inputs": [],
        "outputs": [], "measures": {}, "seconds": 0.5, "peak_memory_mb": 1.0,
    }  # fmt: skip
    return fields | more  # type: ignore[return-value]


def test_lines_come_back_in_the_order_of_the_run(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "m.jsonl")
    manifest.append([record(2), record(0)])
    manifest.append([record(1, "failed")])
    for same in (manifest, Manifest(tmp_path / "m.jsonl")):
        assert same.ids() == ["item-0", "item-1", "item-2"]
        assert same.ids("ok") == ["item-0", "item-2"]
        assert [r["seed"] for r in same.records()] == [0, 1, 2]
        assert same.read("item-2")["seed"] == 2
        assert (same.status("item-1"), same.status("item-9")) == ("failed", None)
        assert (same.count("ok"), same.count("failed")) == (2, 1)


def test_the_last_line_of_an_id_counts(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "m.jsonl")
    manifest.append([record(0, "failed")])
    manifest.append([record(0, attempt=2)])
    again = Manifest(tmp_path / "m.jsonl")
    assert [(r["status"], r["attempt"]) for r in again.records()] == [("ok", 2)]
    assert again.attempts("item-0") == 2


@pytest.mark.parametrize("torn", [b'{"id": "item-1", "ind', b"{}", b"\x00\x00\x00"])
def test_a_torn_last_line_is_ignored_and_cut(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    Manifest(path).append([record(0)])
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    manifest = Manifest(path)
    assert manifest.ids() == ["item-0"]
    assert path.read_bytes() == whole + torn  # a reader changes nothing
    manifest.make_ready()
    assert path.read_bytes() == whole
    manifest.append([record(1)])
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["item-0", "item-1"]


@pytest.mark.parametrize("bad", ["no json", "{}", "[]", '{"id": "item-1"}', "3"])
def test_a_line_of_something_else_counts_as_absent(bad: str, tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    Manifest(path).append([record(0)])
    with path.open("a") as handle:
        handle.write(bad + "\n")
    manifest = Manifest(path)
    manifest.append([record(2)])
    assert [r["id"] for r in Manifest(path).records()] == ["item-0", "item-2"]


def test_a_line_is_strict_json_whatever_was_measured(tmp_path: Path) -> None:
    measures = {
        "nan": math.nan, "inf": np.float32("inf"), "count": np.int64(3), "vector": np.arange(2),
        "path": tmp_path, "flag": np.bool_(True), "text": "Å\n", 5: [(1, 2.5)],
    }  # fmt: skip
    manifest = Manifest(tmp_path / "m.jsonl")
    manifest.append([record(0, measures=measures)])
    assert manifest.read("item-0")["measures"] == {
        "nan": None, "inf": None, "count": 3, "vector": [0, 1], "path": str(tmp_path), "flag": True,
        "text": "Å\n", "5": [[1, 2.5]],
    }  # fmt: skip
    assert len((tmp_path / "m.jsonl").read_bytes().splitlines()) == 1


def test_memory_per_item_is_small_whatever_the_lines_hold(tmp_path: Path) -> None:
    import tracemalloc

    long = {"text": "x" * 2000}
    Manifest(tmp_path / "m.jsonl").append([record(i, measures=long) for i in range(2000)])
    tracemalloc.start()
    manifest = Manifest(tmp_path / "m.jsonl")
    assert sum(1 for _ in manifest.records()) == 2000
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / 2000 < 500
