"""The command line as a whole process: peak memory by the number of samples, time of --help."""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from polydit.bench.measure import ChildRun, run_child
from polydit.bench.rows import Row
from polydit.core.errors import CheckpointError
from polydit.molgen.checkpoint import Checkpoint

STEPS = 2


def molgen_program() -> str:
    """The console command beside this interpreter."""
    return str(Path(sys.executable).parent / "molgen")


def memory_row(*, quick: bool, checkpoint: str | None = None) -> Row:
    """Peak memory of `molgen sample` with many samples minus that with 100."""
    few, many = 100, 1000 if quick else 10_000
    what = f"molgen sample: peak memory of {many:,} samples minus that of {few}"
    try:
        name = Checkpoint.find(checkpoint).name
    except CheckpointError as error:
        return Row(key="memory", what=what, value=None, unit="MB", how=str(error))
    with tempfile.TemporaryDirectory() as folder:
        peaks = {n: _sample(Path(folder) / str(n), n, checkpoint).peak_megabytes for n in (few, many)}
    return Row(
        key="memory",
        what=what,
        value=peaks[many] - peaks[few],
        unit="MB",
        asked=100.0,
        how=f"largest resident set of the whole process, {name}, {STEPS} steps: "
        f"{peaks[many]:.0f} against {peaks[few]:.0f} MB",
        details={"megabytes": peaks},
    )


def _sample(out: Path, count: int, checkpoint: str | None) -> ChildRun:
    given = ["--checkpoint", checkpoint] if checkpoint else []
    options = ["--num-samples", str(count), "--num-steps", str(STEPS), "--out", str(out), "--quiet", *given]
    return run_child([molgen_program(), "sample", *options], accepted=(0, 3))


def help_row() -> Row:
    """Time of `molgen --help`."""
    runs = [run_child([molgen_program(), "--help"]) for _ in range(6)][1:]
    return Row(
        key="help",
        what="molgen --help",
        value=statistics.median(run.seconds for run in runs),
        unit="s",
        asked=0.5,
        how=f"median wall time of {len(runs)} processes after a first one; "
        f"CPU time {statistics.median(run.cpu_seconds for run in runs):.2f} s",
        details={"seconds": [run.seconds for run in runs]},
    )
