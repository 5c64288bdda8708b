"""`pointgen sample` killed: what is left is whole, and a rerun gives the bytes of a run that nothing happened to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import Result

from polydit.core.jobs import read_run
from polydit.pointgen.cli import pointgen

NUM_SAMPLES = 16
# Small batches, so that there is something to interrupt.
OPTIONS = ("--num-samples", NUM_SAMPLES, "--batch-size", 2, "--num-steps", 40, "--points", 512)


def items(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "items").iterdir()}


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_kill_9_in_the_middle(invoke: Callable[..., Result], tmp_path: Path, tiny_checkpoint: Path) -> None:
    common = ("--no-report", "--checkpoint", tiny_checkpoint, *OPTIONS)
    assert invoke(pointgen, "sample", *common, "--out", tmp_path / "whole").exit_code == 0
    out = tmp_path / "run"
    program = [str(Path(sys.executable).parent / "pointgen"), "sample"]
    arguments = [str(argument) for argument in (*common, "--out", out)]
    with subprocess.Popen(program + arguments, stderr=subprocess.PIPE) as child:
        manifest, deadline = out / "manifest.jsonl", time.monotonic() + 300
        while not (manifest.exists() and manifest.stat().st_size):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert 0 < len(lines(out)) < NUM_SAMPLES
    (out / "items" / "chair-000007.ply.tmp1").write_text("half a cloud")  # as a kill within a write leaves it
    with manifest.open("a") as handle:
        handle.write('{"id": "chair-00')
    result = invoke(pointgen, "sample", *common, "--out", out)
    assert result.exit_code == 0, result.output
    assert items(out) == items(tmp_path / "whole")
    assert sorted(line["index"] for line in lines(out)) == list(range(NUM_SAMPLES))
    run = read_run(out).run
    assert (run["status"], run["counts"]) == ("done", {"ok": NUM_SAMPLES, "failed": 0})
