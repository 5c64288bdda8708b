"""Run folders: what a rerun may do, who may write, and what is refused by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from polydit.core.errors import InputError
from polydit.core.jobs import ItemFailure, ItemResult, RunFolder, read_run


class Option(NamedTuple):
    value: Any
    source: str = "default"


def open_run(out: Path, overwrite: bool = False, sha256: str = "aa", **options: Any) -> RunFolder:
    values = {"seed": 0, "num_samples": 2, "device": "cpu", **options}
    return RunFolder.open(
        out,
        command="demo run",
        options={name: Option(value) for name, value in values.items()},
        provenance={"checkpoint": {"name": "demo", "sha256": sha256}},
        overwrite=overwrite,
        free={"device"},
        growing={"num_samples"},
        products=["joined.txt", "report.html"],
    )


def result(index: int, text: str = "x") -> ItemResult:
    files = {".txt": text.encode(), "/part.txt": b"part"}
    measures = {"length": len(text)}
    return ItemResult(id=f"item-{index}", index=index, seed=index, files=files, measures=measures)


def failure(index: int) -> ItemFailure:
    return ItemFailure(id=f"item-{index}", index=index, seed=index, error="ValueError", message="too long")


def run_json(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "run.json").read_text()))


def test_a_run_reads_back(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as folder:
        assert run_json(folder.path)["status"] == "running"
        folder.commit([result(1), result(0)])
        folder.commit([failure(2)])
        folder.note(device="cpu")
    run = read_run(tmp_path / "run")
    assert (run.command, run.options["seed"], run.provenance["device"]) == ("demo run", 0, "cpu")
    assert [r["id"] for r in run.finished()] == ["item-0", "item-1"]
    assert [r["error"] for r in run.failed()] == [{"type": "ValueError", "message": "too long"}]
    paths = [path.relative_to(run.folder).as_posix() for _, path in run.files()]
    assert paths == ["items/item-0.txt", "items/item-0/part.txt", "items/item-1.txt", "items/item-1/part.txt"]
    assert run.run["status"] == "some failed"
    assert run.run["counts"] == {"ok": 2, "failed": 1}
    assert run.run["ended"] >= run.run["started"]


def test_a_run_of_nothing_is_a_whole_run(tmp_path: Path) -> None:
    open_run(tmp_path, num_samples=0).close("done")
    run = read_run(tmp_path)
    assert (list(run.records()), list(run.files()), run.run["counts"]) == ([], [], {"ok": 0, "failed": 0})
    assert {p.name for p in tmp_path.iterdir()} == {".lock", "run.json", "manifest.jsonl", "items"}


def test_a_line_says_what_its_files_hold(tmp_path: Path) -> None:
    import hashlib

    with open_run(tmp_path) as folder:
        (record,) = folder.commit([result(0, "hello")])
    for output in record["outputs"]:
        content = (tmp_path / output["path"]).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (output["sha256"], output["bytes"])


def test_a_rerun_continues_and_counts_attempts(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        folder.commit([result(0), failure(1)])
    with open_run(tmp_path, device="cuda") as folder:
        assert (folder.finished, folder.failed) == (["item-0"], ["item-1"])
        (record,) = folder.commit([result(1)])
    assert record["attempt"] == 2
    run = read_run(tmp_path)
    assert (run.run["status"], len(run.run["sessions"])) == ("done", 2)
    assert run.options["device"] == "cuda"


def test_what_a_call_noted_outlives_a_call_with_nothing_to_do(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for device in ("cpu", None, "cuda:0"):
        with open_run(out) as folder:
            if device:
                folder.note(device=device)
        assert run_json(out)["provenance"]["device"] == (device or "cpu")


def test_other_settings_are_named_with_both_values(tmp_path: Path) -> None:
    open_run(tmp_path, num_steps=10).close("done")
    with pytest.raises(InputError) as caught:
        open_run(tmp_path, seed=1, num_steps=20, new_key="a", device="mps", sha256="bb")
    message = str(caught.value)
    for part in ("seed (0 before, 1 now)", "num-steps (10 before, 20 now)", "new-key (None before, a now)",
                 "checkpoint (sha256 aa before, sha256 bb now)", "--overwrite"):  # fmt: skip
        assert part in message
    assert "device" not in message
    assert caught.value.exit_code == 2
    open_run(tmp_path, num_steps=10).close("done")  # the refusal changed nothing and freed the folder


def test_a_run_may_grow_but_not_shrink(tmp_path: Path) -> None:
    open_run(tmp_path, num_samples=2).close("done")
    open_run(tmp_path, num_samples=5).close("done")
    with pytest.raises(InputError, match=r"num-samples \(5 before, 4 now\)"):
        open_run(tmp_path, num_samples=4)


def test_overwrite_removes_the_run_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with open_run(tmp_path) as folder:
        folder.commit([result(0), result(1)])
        folder.write_product("joined.txt", iter([b"a", b"b"]))
    assert (tmp_path / "joined.txt").read_text() == "ab"
    with open_run(tmp_path, overwrite=True, seed=5) as folder:
        assert folder.finished == []
        assert not (tmp_path / "joined.txt").exists()
        folder.commit([result(0)])
    assert {p.name for p in (tmp_path / "items").iterdir()} == {"item-0", "item-0.txt"}
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(run_json(tmp_path)["sessions"]) == 1


def test_an_overwrite_that_was_killed_is_finished_by_the_next_call(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        folder.commit([result(0), result(1)])
    run = run_json(tmp_path) | {"status": "clearing"}
    (tmp_path / "run.json").write_text(json.dumps(run))
    (tmp_path / "manifest.jsonl").unlink()
    with open_run(tmp_path, seed=9) as folder:
        assert folder.finished == []
        assert list(folder.items.iterdir()) == []


@pytest.mark.parametrize("name", ["items", "manifest.jsonl", "joined.txt"])
def test_files_of_somebody_else_are_not_touched(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=f"holds {name} but no run.json"):
            open_run(tmp_path, overwrite=overwrite)
    assert (tmp_path / name).read_text() == "precious"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}', "\x00"])
def test_a_foreign_run_json_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json"):
        open_run(tmp_path, overwrite=True)
    assert (tmp_path / "run.json").read_text() == content


def test_a_product_outside_of_the_folder_is_never_removed(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    out = tmp_path / "run"
    open_run(out).close("done")
    (out / "run.json").write_text(json.dumps(run_json(out) | {"products": ["../precious.txt"]}))
    with pytest.raises(InputError, match="outside of its folder"):
        open_run(out, overwrite=True)
    assert precious.read_text() == "mine"


def test_a_manifest_cannot_lead_a_reader_out_of_the_folder(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as folder:
        folder.commit([result(0)])
    manifest = tmp_path / "run" / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace("items/item-0.txt", "../../etc/passwd"))
    with pytest.raises(InputError, match="leads out of the run folder"):
        list(read_run(tmp_path / "run").files())


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="is a file"):
        open_run(tmp_path / "run")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        open_run(tmp_path / "run" / "below")


def test_a_second_run_in_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    with open_run(tmp_path) as folder:
        with pytest.raises(InputError, match=f"another run is working .* .process {os.getpid()} on"):
            open_run(tmp_path)
        folder.commit([result(0)])  # the refused one did no harm
    open_run(tmp_path).close("done")


def test_a_killed_run_frees_its_folder(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from polydit.core.jobs import RunFolder\n"
        "f = RunFolder.open(Path(sys.argv[1]), command='demo run', options={}, provenance={})\n"
        "print('open', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"open\n"
        with pytest.raises(InputError, match=f"process {child.pid} on"):
            RunFolder.open(tmp_path, command="demo run", options={}, provenance={})
        child.send_signal(signal.SIGKILL)
        child.wait()
    RunFolder.open(tmp_path, command="demo run", options={}, provenance={}).close("done")


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError, "failed"), (KeyboardInterrupt, "interrupted"), (SystemExit, "interrupted")],
)
def test_how_a_run_ended_is_recorded(error: type[BaseException], status: str, tmp_path: Path) -> None:
    with pytest.raises(error), open_run(tmp_path):
        raise error
    assert run_json(tmp_path)["status"] == status
    open_run(tmp_path).close("done")


def test_nobody_is_a_run_folder_by_accident(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run folder"):
        read_run(tmp_path)
