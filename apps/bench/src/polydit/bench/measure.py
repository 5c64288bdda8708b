"""How the bench measures: interleaved rounds in one process, medians, ratios, child processes."""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds of each round of one contestant."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]  # of all threads of the process

    @property
    def median(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.wall)

    @property
    def median_cpu(self) -> float:
        """Median CPU seconds: what a busy machine distorts least, on one thread."""
        return statistics.median(self.cpu)


def interleave(
    contestants: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 1
) -> dict[str, Timings]:
    """Run A B A B ...: whatever else slows the machine down slows all contestants alike.

    Args:
        contestants: Name to what is measured.
        rounds: Measured runs of each.
        warm_up: Runs of each before that.
    """
    for run in contestants.values():
        for _ in range(warm_up):
            run()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return {name: Timings(*map(tuple, zip(*pairs, strict=True))) for name, pairs in seconds.items()}


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of ours / theirs: both of a round met the same machine."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Give torch `count` threads within an operation."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class ChildRun:
    """What the system says about a finished child process."""

    seconds: float
    cpu_seconds: float
    peak_megabytes: float


# A process inherits the peak of the one that started it (Linux counts across exec), so a small one goes between.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
process.returncode = os.waitstatus_to_exitcode(status)
cpu = usage.ru_utime + usage.ru_stime
print(json.dumps([process.returncode, time.perf_counter() - start, cpu, usage.ru_maxrss]))
"""


def run_child(command: Sequence[str], *, num_threads: int = 1, accepted: Sequence[int] = (0,)) -> ChildRun:
    """Run a program to its end, silently.

    Args:
        command: Program and arguments.
        num_threads: Threads of torch and its libraries.
        accepted: Exit codes that count as done.

    Raises:
        RuntimeError: It failed; with the end of what it said.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, *command],
        env={**os.environ, "OMP_NUM_THREADS": str(num_threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as launcher:
        try:
            report, said = launcher.communicate()
        except BaseException:  # interrupted: what was started must not go on alone
            os.killpg(launcher.pid, signal.SIGKILL)
            raise
    if launcher.returncode:
        raise RuntimeError(f"{' '.join(command)} did not start: {said[-2000:]}")
    code, seconds, cpu_seconds, peak = json.loads(report)
    if code not in accepted:
        raise RuntimeError(f"{' '.join(command)} ended with {code}: {said[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return ChildRun(seconds, cpu_seconds, peak * unit / 1e6)


def describe_machine() -> dict[str, Any]:
    """Processor, cores, load and versions: what a figure of speed is worth nothing without."""
    import torch

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "vector_units": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123  a device file
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        return platform.processor()
    return names[0] if names else platform.processor()
