"""`molgen sample` killed, terminated, interrupted, or without disk: what is left is whole, and a rerun
gives the bytes of a run that nothing happened to."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from polydit.core.jobs import read_run

Sample = Callable[..., Result]
NUM_SAMPLES = 24
# Small batches, so that there is something to interrupt.
OPTIONS = ("--num-samples", NUM_SAMPLES, "--batch-size", 4, "--num-steps", 40)


def items(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "items").iterdir()}


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


@pytest.fixture
def expected(sample: Sample, tmp_path: Path) -> Path:
    """The run that nothing happens to."""
    assert sample(*OPTIONS, "--out", tmp_path / "whole").exit_code == 0
    return tmp_path / "whole"


def check_resumed(out: Path, expected: Path) -> None:
    assert items(out) == items(expected)
    assert (out / "molecules.sdf").read_bytes() == (expected / "molecules.sdf").read_bytes()
    assert sorted(line["index"] for line in lines(out)) == list(range(NUM_SAMPLES))
    assert not list(out.rglob("*.tmp*"))
    run = read_run(out).run
    assert (run["status"], run["counts"], len(run["sessions"])) == (
        "done",
        {"ok": NUM_SAMPLES, "failed": 0},
        2,
    )


def test_kill_9_in_the_middle(
    sample: Sample, expected: Path, tmp_path: Path, tiny_checkpoint: Path, root: Path
) -> None:
    out = tmp_path / "run"
    program = [str(Path(sys.executable).parent / "molgen"), "sample", "--no-report"]
    arguments = [str(a) for a in ("--checkpoint", tiny_checkpoint, *OPTIONS, "--out", out)]
    with subprocess.Popen(program + arguments, stderr=subprocess.PIPE) as child:
        manifest, deadline = out / "manifest.jsonl", time.monotonic() + 300
        while not (manifest.exists() and manifest.stat().st_size):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    survived = len(lines(out))
    assert 0 < survived < NUM_SAMPLES
    (out / "items" / "mol-000000.sdf.tmp1").write_text(
        "half a molecule"
    )  # as a kill within a write leaves it
    with manifest.open("a") as handle:
        handle.write('{"id": "mol-00')
    result = sample(*OPTIONS, "--out", out)
    assert result.exit_code == 0, result.output
    check_resumed(out, expected)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "Terminated"), (signal.SIGINT, 130, "Interrupted")]
)
def test_a_signal_in_the_middle(
    number: signal.Signals, code: int, word: str, sample: Sample, expected: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from polydit.molgen.pipeline import MolgenPipeline

    original, batches = MolgenPipeline.__call__, list[int]()

    def call(self: MolgenPipeline, requests: Sequence[Any], **options: Any) -> Any:
        batches.append(len(requests))
        if len(batches) == 3:
            os.kill(os.getpid(), number)
        return original(self, requests, **options)

    monkeypatch.setattr(MolgenPipeline, "__call__", call)
    # as Python sets it, unless this process was started in the background of a shell script, which ignores Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = sample(*OPTIONS, "--out", tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == code
    assert f"{word}. Run the same command again to continue." in result.stderr
    assert (len(lines(tmp_path / "run")), read_run(tmp_path / "run").run["status"]) == (8, "interrupted")
    assert sample(*OPTIONS, "--out", tmp_path / "run").exit_code == 0
    check_resumed(tmp_path / "run", expected)


def test_a_batch_that_was_half_written_is_completed(sample: Sample, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert sample(*OPTIONS, "--out", out).exit_code == 0
    manifest = out / "manifest.jsonl"
    kept = manifest.read_text().splitlines(keepends=True)[:10]  # two batches and a half
    manifest.write_text("".join(kept))
    for name in items(out).keys() - {f"{json.loads(line)['id']}.sdf" for line in kept}:
        (out / "items" / name).write_text("an orphan: its line was never written")
    assert sample(*OPTIONS, "--out", out).exit_code == 0
    check_resumed(out, expected)


def test_a_full_disk(sample: Sample, expected: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4500, before[1]))  # the manifest reaches it, no structure does
    try:
        result = sample(*OPTIONS, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 1
    assert "the disk is full" in result.stderr and "run the same command again" in result.stderr
    assert 0 < len(lines(out)) < NUM_SAMPLES
    assert sample(*OPTIONS, "--out", out).exit_code == 0
    check_resumed(out, expected)
