"""`polydit calibrate`: which steps, solver and cache are worth their time on a user's own checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polydit.core.cli.evaluation import FiguresFolder, figures_option, replace_option
from polydit.core.cli.options import Decorated, output_options, stacked
from polydit.core.cli.output import Output
from polydit.core.cli.settings import measure, prepare, record_of, said, sampler_options, write_index
from polydit.core.errors import InputError
from polydit.core.sampling.cache.named import CACHE_KEY, CACHES, NEED_A_TABLE, NONE

if TYPE_CHECKING:
    from polydit.core.sampling.calibration import Calibration, Measured, Sampler, Setting

RECORD, PICTURE = "calibration.json", "calibration.svg"
_SHARES = (0.2, 0.4, 0.6, 1.0)  # of the default's steps


def _folder_options(function: Decorated) -> Decorated:
    """`out` and `overwrite`."""
    return stacked(
        function,
        figures_option(help=f"Folder for {RECORD} and {PICTURE}."),
        replace_option(help="Replace a calibration that is in --out already."),
    )


@click.command()
@sampler_options
@click.option("--num-steps", "steps", multiple=True, type=click.IntRange(min=1),
              show_default="0.2, 0.4, 0.6 and 1 of the checkpoint's", help="Numbers of steps to try.")  # fmt: skip
@click.option("--solver", "solvers", multiple=True, show_default="all of the domain", help="Solvers to try.")
@click.option("--cache", "caches", multiple=True, show_default="each, with its own settings",
              help="Caches to try, with options as in 'newton(every=4)'; none is always tried.")  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(min=1), default=2, help="Runs of each setting; the median counts."
)
@click.option("--tolerance", type=click.FloatRange(min=1.0), default=1.25,
              help="Largest error of the chosen setting, over the error of the checkpoint's own.")  # fmt: skip
@click.option("--write", is_flag=True, help="Make the chosen setting the checkpoint's own.")
@_folder_options
@output_options
def calibrate(
    domain: str,
    checkpoint: str | None,
    num_samples: int,
    requests: tuple[str, ...],
    steps: tuple[int, ...],
    solvers: tuple[str, ...],
    caches: tuple[str, ...],
    rounds: int,
    tolerance: float,
    write: bool,
    out: Path | None,
    overwrite: bool,
    output: Output,
) -> None:
    """Measure numbers of steps, solvers and caches on a checkpoint, and choose.

    \b
    polydit calibrate DOMAIN
    polydit calibrate DOMAIN --checkpoint model/checkpoint --cache newton --cache 'newton(every=4)' --write

    Every setting samples the same items from the same noise. The error is the distance to a run of many more steps,
    over the size of that run's result, before anything is rounded or decoded; what a domain's own figures make of it,
    its `evaluate` says. A cache is worth its place only where a better solver with fewer steps is not as good; that is
    the second of the two fronts.
    """
    folder = FiguresFolder(out, (RECORD, PICTURE))
    folder.check(overwrite=overwrite)
    found, sampler = prepare(domain, checkpoint, num_samples, requests)
    with folder.held():
        calibration = measure(sampler, _settings(sampler, steps, solvers, caches), rounds, output)
        chosen = calibration.choose(tolerance=tolerance)
        fewer = calibration.choose(tolerance=tolerance, cached=False)
        output.table(_rows(calibration))
        if out is not None:
            folder.write(_files(calibration, chosen))
    if write:
        write_index(found.path, _kept(chosen.setting, calibration.default.setting))
    output.summary(
        {
            "default": record_of(calibration.default, calibration.default),
            "fewer_steps": record_of(fewer, calibration.default),
            "chosen": record_of(chosen, calibration.default),
            "written": str(found.path) if write else None,
        },
        f"better solver, fewer steps: {said(fewer, calibration.default)}",
        f"chosen: {said(chosen, calibration.default)}",
        *([f"written to {found.path}"] if write else ["--write makes it the checkpoint's own"]),
    )


def _settings(
    sampler: Sampler, steps: Sequence[int], solvers: Sequence[str], caches: Sequence[str]
) -> list[Setting]:
    """Every solver at every number of steps without a cache, and every cache at every number of steps."""
    from polydit.core.sampling.calibration import Setting

    if unknown := [name for name in solvers if name not in sampler.solvers]:
        raise InputError(
            f"there is no solver {unknown[0]}", where="--solver", expected=", ".join(sampler.solvers)
        )
    every = sampler.default.num_steps
    counts = steps or tuple(sorted({max(2, round(share * every)) for share in _SHARES}))
    names = caches or tuple(name for name in CACHES if name not in (NONE, *NEED_A_TABLE))
    return [
        Setting(num_steps=count, solver=solver, cache=cache)
        for count, solver, cache in product(counts, solvers or sampler.solvers, (NONE, *names))
    ]


def _rows(calibration: Calibration) -> list[dict[str, Any]]:
    """The settings, the fastest first, each with the fronts that it lies on."""
    fronts = {"all": calibration.front(), "without caches": calibration.front(cached=False)}
    return [
        {
            **record_of(one, calibration.default),
            "front": ", ".join(name for name, best in fronts.items() if one in best),
        }
        for one in sorted(calibration.measured, key=lambda one: one.seconds)
    ]


def _files(calibration: Calibration, chosen: Measured) -> dict[str, bytes]:
    """All figures for programs, and both fronts as a picture."""
    from polydit.core.report.plots import line_plot

    record = {"settings": _rows(calibration), "chosen": record_of(chosen, calibration.default)}
    record["refused"] = {str(setting): reason for setting, reason in calibration.refused.items()}
    places = sorted({one.seconds for one in calibration.measured})
    fronts = {"all settings": calibration.front(), "without caches": calibration.front(cached=False)}
    lines = {
        name: [next((one.error for one in best if one.seconds == place), float("nan")) for place in places]
        for name, best in fronts.items()
    }
    picture = line_plot(
        places, lines, x_label="seconds", y_label="error", title="Error against time", log_y=True
    )
    return {RECORD: f"{json.dumps(record, indent=1)}\n".encode(), PICTURE: str(picture).encode()}


def _kept(chosen: Setting, default: Setting) -> dict[str, str | int]:
    """What the checkpoint's index says of the chosen setting; its solver only if that is another one."""
    solver = {"solver": chosen.solver} if chosen.solver != default.solver else {}
    return {"num_steps": chosen.num_steps, CACHE_KEY: str(chosen.cache), **solver}
