"""The command `polydit-bench`: a table on stdout; figures, raw timings and plots in a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polydit.core.cli.group import DomainGroup
from polydit.core.cli.options import output_options
from polydit.core.cli.output import Output, to_json

if TYPE_CHECKING:
    from polydit.bench.rows import Row

PARTS = ("forward", "overhead", "job", "precision", "memory", "help", "training")
MODE_PARTS = ("cache", "dense")
POINTGEN_PARTS = ("chamfer", "windows", "transfer")
DIT_PARTS = ("forward", "overhead")
STAIN_PARTS = ("places", "speed", "multitask")
CACHE_PARTS = ("dit", "flux", "starters")

quick_option = click.option(
    "--quick", is_flag=True, help="Fewer samples, steps and rounds; the same ratios, less steady."
)
out_option = click.option("--out", "-o", type=click.Path(path_type=Path, file_okay=False), default=None,
                          show_default="nowhere", help="Folder for results.json and the plots.")  # fmt: skip


@click.group(
    name="polydit-bench",
    cls=DomainGroup,
    lazy={
        "molgen": ("polydit.bench.cli:molgen", "Molecules and crystals: speed, memory, precision."),
        "mode": (
            "polydit.bench.cli:mode",
            "MoDE's robot policy: its expert cache, and experts beside a dense network.",
        ),
        "pointgen": ("polydit.bench.cli:pointgen", "Point clouds: the metrics, windows, 2D to 3D transfer."),
        "vstain": (
            "polydit.bench.cli:vstain",
            "Virtual staining: slides beside the plain way, and the mask learnt beside the stain.",
        ),
        "dit": ("polydit.bench.cli:dit", "DiT-S/2: ours, diffusers' and a plain transcription."),
        "caches": ("polydit.bench.cli:caches", "Feature caches: ours, diffusers' and cache-dit's."),
    },
    distributions=("polydit-bench", "polydit-core", "torch"),
    invoke_without_command=True,
)
@click.pass_context
def polydit_bench(ctx: click.Context) -> None:
    """Measure our tools beside plain transcriptions of what they implement. Without a command: all of them.

    \b
    polydit-bench molgen --quick
    polydit-bench molgen --only forward --only job --out bench/
    polydit-bench mode
    polydit-bench pointgen --clouds 200
    polydit-bench vstain --only speed
    polydit-bench dit --quick
    polydit-bench caches --only dit --out bench/
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(molgen)
        ctx.invoke(mode)
        ctx.invoke(pointgen)
        ctx.invoke(vstain)
        ctx.invoke(dit)
        ctx.invoke(caches)


@click.command()
@quick_option
@click.option("--only", type=click.Choice(PARTS), multiple=True, show_default="all", help="Parts to measure.")
@click.option("--checkpoint", metavar="PATH", default=None, show_default="the starter",
              help="Checkpoint folder of the parts memory and precision.")  # fmt: skip
@out_option
@output_options
def molgen(
    quick: bool, only: tuple[str, ...], checkpoint: str | None, out: Path | None, output: Output
) -> None:
    """Measure molgen against a plain transcription of ADiT.

    Ratios are medians over interleaved rounds (A B A B) in one process. The random weights of ADiT-S are the
    same on both sides. The whole takes about 30 minutes on two idle cores, with --quick about 3.
    """
    _run(only or PARTS, partial(_measure, quick=quick, checkpoint=checkpoint), quick, out, output)


@click.command()
@quick_option
@click.option(
    "--only", type=click.Choice(MODE_PARTS), multiple=True, show_default="all", help="Parts to measure."
)
@out_option
@output_options
def mode(quick: bool, only: tuple[str, ...], out: Path | None, output: Output) -> None:
    """Measure MoDE's expert cache, and its experts against a dense network of equal total size.

    Ratios are medians over interleaved rounds (A B A B) in one process, with random weights. The whole takes about
    2 minutes on one idle core, with --quick half a minute.
    """
    _run(only or MODE_PARTS, partial(_measure_mode, quick=quick), quick, out, output)


@click.command()
@quick_option
@click.option("--only", type=click.Choice(POINTGEN_PARTS), multiple=True, show_default="all",
              help="Parts to measure.")  # fmt: skip
@click.option("--clouds", type=click.IntRange(min=16), default=None, show_default="200, or 60 with --quick",
              help="Clouds of each of the two sets.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), default=2, help="Our processes, and torch's threads.")
@out_option
@output_options
def pointgen(
    quick: bool, only: tuple[str, ...], clouds: int | None, workers: int, out: Path | None, output: Output
) -> None:
    """Measure 1-NNA's speed, attention in windows, and a start from pictures' weights.

    chamfer: 1-NNA with the Chamfer distance against torch.cdist(...).min on the same parametric clouds; the plain side
    would take about an hour, so it is timed on some pairs in the same run. windows: attention in 3D windows against
    attention to all tokens, with the same weights. transfer: blocks of a network of pictures as the start of one of
    clouds, against none. The whole takes about 15 minutes of two idle cores, with --quick one.
    """
    measure = partial(_measure_pointgen, quick=quick, clouds=clouds, workers=workers)
    _run(only or POINTGEN_PARTS, measure, quick, out, output)


@click.command()
@quick_option
@click.option("--only", type=click.Choice(STAIN_PARTS), multiple=True, show_default="all",
              help="Parts to measure.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), default=2, help="Trainings side by side.")
@click.option("--checkpoint", metavar="PATH", default=None, show_default="the starter",
              help="Checkpoint folder of the parts places and speed.")  # fmt: skip
@out_option
@output_options
def vstain(
    quick: bool,
    only: tuple[str, ...],
    workers: int,
    checkpoint: str | None,
    out: Path | None,
    output: Output,
) -> None:
    """Measure virtual staining: tiles and their places, the time of a slide, the worth of the mask.

    places: the difference of two tiles where they overlap, of one tile in two batches, and of a moved grid. speed:
    tiles per second on a slide with 35 % tissue beside the plain way. multitask: six small trainings, with and without
    the mask, on 10, 30 and 100 % of the pairs. The whole takes about an hour of two idle cores, with --quick two
    minutes.
    """
    measure = partial(_measure_vstain, quick=quick, workers=workers, checkpoint=checkpoint)
    _run(only or STAIN_PARTS, measure, quick, out, output)


@click.command()
@quick_option
@click.option("--only", type=click.Choice(DIT_PARTS), multiple=True, show_default="all",
              help="Parts to measure.")  # fmt: skip
@out_option
@output_options
def dit(quick: bool, only: tuple[str, ...], out: Path | None, output: Output) -> None:
    """Measure DiT-S/2 beside diffusers' class and a plain transcription, all with the same random weights.

    forward: one forward at 256 and at 16 tokens in fp32, and at 256 in bf16 with compiled blocks. overhead: our guided
    sampling loop over bare forwards, and over the transcription's run. Ratios are medians over interleaved rounds
    (A B A B) in one process. The whole takes about 4 minutes of one idle core, with --quick one.
    """
    _run(only or DIT_PARTS, partial(_measure_dit, quick=quick), quick, out, output)


@click.command()
@quick_option
@click.option("--only", type=click.Choice(CACHE_PARTS), multiple=True, show_default="all",
              help="Networks to measure on.")  # fmt: skip
@out_option
@output_options
def caches(quick: bool, only: tuple[str, ...], out: Path | None, output: Output) -> None:
    """Measure feature caches: distance to the uncached run against time, ours beside diffusers' and cache-dit's.

    dit: a small DiT under guidance, which the bench trains first (about two minutes, kept in --out for the next time).
    flux: a tiny FLUX of diffusers with random weights. Both also with fewer steps and better solvers, by the error to
    the true solution. cache-dit takes part if it is installed. starters: Newton's forecast beside Taylor's on the
    checkpoint of each domain, and what its own cache saves; robopolicy's needs its simulator. The whole takes about 20
    minutes of one idle core, with --quick 6.
    """
    _run(only or CACHE_PARTS, partial(_measure_caches, quick=quick, out=out), quick, out, output)


def _run(
    parts: Sequence[str],
    measure: Callable[[str], Iterator[Row]],
    quick: bool,
    out: Path | None,
    output: Output,
) -> None:
    """Measure the parts one after the other, and tell."""
    from polydit.bench.measure import describe_machine

    machine = describe_machine()
    rows: list[Row] = []
    with output.progress(len(parts), what="bench", unit="part") as progress:
        for part in parts:
            for row in measure(part):
                output.item(row.record())
                rows.append(row)
            progress.update()
    if not output.json:
        output.table([{key: value for key, value in row.line().items() if key != "how"} for row in rows])
        for row in rows:
            output.text(f"{row.what}: {row.how}.")
        output.text(", ".join(f"{key} {value}" for key, value in machine.items()))
    if out is not None:
        _write(out, rows, {"quick": quick, **machine})
        output.note(f"Written to {out}")


def _measure(part: str, *, quick: bool, checkpoint: str | None) -> Iterator[Row]:
    """The rows of one part; the imports wait until here."""
    from polydit.bench import forward, job, processes, training

    measures: dict[str, Callable[[], Any]] = {
        "forward": lambda: forward.forward_rows(quick=quick),
        "overhead": lambda: [forward.overhead_row(quick=quick)],
        "job": lambda: job.job_rows(quick=quick),
        "precision": lambda: job.precision_rows(quick=quick, checkpoint=checkpoint),
        "memory": lambda: [processes.memory_row(quick=quick, checkpoint=checkpoint)],
        "help": lambda: [processes.help_row()],
        "training": lambda: [training.training_row(quick=quick)],
    }
    yield from measures[part]()


def _measure_mode(part: str, *, quick: bool) -> Iterator[Row]:
    """The rows of one part of MoDE's bench."""
    from polydit.bench.mode import cache_rows, dense_rows

    yield from {"cache": cache_rows, "dense": dense_rows}[part](quick=quick)


def _measure_pointgen(part: str, *, quick: bool, clouds: int | None, workers: int) -> Iterator[Row]:
    """The rows of one part of pointgen's bench."""
    from polydit.bench.chamfer import chamfer_rows
    from polydit.bench.point_transfer import transfer_rows
    from polydit.bench.point_windows import window_rows

    measures: dict[str, Callable[[], Iterator[Row]]] = {
        "chamfer": lambda: chamfer_rows(quick=quick, clouds=clouds, workers=workers),
        "windows": lambda: window_rows(quick=quick),
        "transfer": lambda: transfer_rows(quick=quick),
    }
    yield from measures[part]()


def _measure_vstain(part: str, *, quick: bool, workers: int, checkpoint: str | None) -> Iterator[Row]:
    """The rows of one part of vstain's bench."""
    from polydit.bench.stain_multitask import multitask_rows
    from polydit.bench.stain_places import place_rows
    from polydit.bench.stain_speed import speed_rows

    measures: dict[str, Callable[[], Iterator[Row]]] = {
        "places": lambda: place_rows(quick=quick, checkpoint=checkpoint),
        "speed": lambda: speed_rows(quick=quick, checkpoint=checkpoint),
        "multitask": lambda: multitask_rows(quick=quick, workers=workers),
    }
    yield from measures[part]()


def _measure_dit(part: str, *, quick: bool) -> Iterator[Row]:
    """The rows of one part of DiT's bench."""
    from polydit.bench.dit_forward import forward_rows, overhead_rows

    yield from forward_rows(quick=quick) if part == "forward" else overhead_rows(quick=quick)


def _measure_caches(part: str, *, quick: bool, out: Path | None) -> Iterator[Row]:
    """The rows of one part of the caches' bench."""
    if part == "starters":
        from polydit.bench.cache_starters import starter_rows

        yield from starter_rows(quick=quick)
        return
    from polydit.bench.caches import cache_rows

    yield from cache_rows(part, quick=quick, out=out)


def _write(out: Path, rows: list[Row], circumstances: dict[str, Any]) -> None:
    from polydit.bench.plots import row_plot

    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(
        to_json({**circumstances, "rows": [row.record() for row in rows]}) + "\n", encoding="utf-8"
    )
    for row in rows:
        if picture := row_plot(row):
            name = re.sub(r"\W+", "-", row.key)
            (out / f"{name}.svg").write_text(picture, encoding="utf-8")
