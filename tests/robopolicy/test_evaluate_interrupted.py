"""`robopolicy evaluate` killed or terminated, or one of its processes killed: what is left is whole, and in the end
there is what a run has that nothing happened to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from polydit.core.jobs import read_run
from polydit.robopolicy.cli import robopolicy

EPISODES = 24
OPTIONS = [
    "--task", "drawer-open-v3", "--policy", "random", "--episodes", str(EPISODES), "--max-steps", "120",
    "--plots", str(EPISODES), "--no-report", "--workers", "2",
]  # fmt: skip


def lines(out: Path) -> list[dict[str, Any]]:
    manifest = out / "manifest.jsonl"
    whole = [line for line in manifest.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def traces(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "items").iterdir()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every action and reward of the run that nothing happens to."""
    out = tmp_path_factory.mktemp("whole")
    with running(out) as child:
        assert child.wait() == 0
    assert len(lines(out)) == EPISODES
    return traces(out)


@contextmanager
def running(out: Path) -> Iterator[subprocess.Popen[bytes]]:
    program = str(Path(sys.executable).parent / "robopolicy")
    command = [program, "evaluate", *OPTIONS, "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.kill()


def wait_until(condition: Callable[[], object], child: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        assert child is None or child.poll() is None, "it ended before something could happen to it"
        time.sleep(0.005)


def begun(out: Path) -> bool:
    manifest = out / "manifest.jsonl"
    return manifest.exists() and manifest.stat().st_size > 0


def workers_of(pid: int) -> list[int]:
    """Its processes that run episodes."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if (
                folder.name.isdigit()
                and parent_of(folder) == pid
                and b"spawn_main" in (folder / "cmdline").read_bytes()
            ):
                found.append(int(folder.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return found


def parent_of(folder: Path) -> int:
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def check_whole(out: Path, expected: dict[str, bytes], sessions: int) -> None:
    assert traces(out) == expected
    assert sorted(line["index"] for line in lines(out)) == list(range(EPISODES))  # none twice
    assert len((out / "episodes.csv").read_text().splitlines()) == EPISODES + 1
    run = read_run(out).run
    assert (run["status"], run["counts"]) == ("done", {"ok": EPISODES, "failed": 0})
    assert len(run["sessions"]) == sessions
    assert not list(out.rglob("*.tmp*"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_ended_goes_on_where_it_was(
    tmp_path: Path, expected: dict[str, bytes], invoke: Callable[..., Result], number: signal.Signals
) -> None:
    out = tmp_path / "run"
    with running(out) as child:
        wait_until(lambda: begun(out), child)
        workers = workers_of(child.pid)
        child.send_signal(number)
        code = child.wait()
        assert child.stderr is not None
        words = child.stderr.read().decode()
    assert code == (-number if number == signal.SIGKILL else 143), words
    assert workers
    wait_until(lambda: not any(map(alive, workers)))
    survived = len(lines(out))
    assert 0 < survived < EPISODES
    if number == signal.SIGTERM:
        assert "Run the same command again to continue" in words
        assert read_run(out).run["status"] == "interrupted"
    with (out / "manifest.jsonl").open("a") as handle:
        handle.write('{"id": "drawer-open-v3-1000')  # as a kill within a write leaves it
    result = invoke(robopolicy, "evaluate", *OPTIONS, "--out", out)
    assert result.exit_code == 0, result.output
    check_whole(out, expected, sessions=2)


def test_a_process_that_is_killed_is_replaced(tmp_path: Path, expected: dict[str, bytes]) -> None:
    out = tmp_path / "run"
    with running(out) as child:
        wait_until(lambda: begun(out), child)
        victim = workers_of(child.pid)[0]
        os.kill(victim, signal.SIGKILL)
        assert child.wait() == 0
    assert not alive(victim)
    check_whole(out, expected, sessions=1)
