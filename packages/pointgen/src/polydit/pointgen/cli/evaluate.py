"""`pointgen evaluate`: the field's figures of generated clouds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polydit.core.cli.evaluation import FiguresFolder, exit_for, figures_option, name_rejected, replace_option
from polydit.core.cli.options import (
    CommaList,
    config_option,
    device_option,
    limit_option,
    output_options,
    workers_option,
)
from polydit.core.cli.output import Output
from polydit.core.errors import InputError
from polydit.core.figure import Figure, Measure

if TYPE_CHECKING:
    from polydit.pointgen.evaluate import Figures
    from polydit.pointgen.evaluate.emd import EmdVariant
    from polydit.pointgen.evaluate.evaluation import Metric

_FILES = ("figures.json", "nearest.csv", "rejected.csv")


@click.command()
@click.argument("path", metavar="RUN_OR_FOLDER", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--reference", type=click.Path(path_type=Path), required=True, metavar="PATH",
    help="Clouds to measure against, as many of each category: DATASET/val, or a folder.",
)  # fmt: skip
@click.option("--category", metavar="NAME", default=None, show_default="those of the samples",
              help="Only this category; samples that state none are taken for it.")  # fmt: skip
@click.option("--points", type=click.IntRange(min=2), default=2048, help="Points of each cloud.")
@click.option(
    "--metric", "metrics", type=CommaList(["cd", "emd", "jsd"]), default="cd,jsd",
    help="What to measure: cd and emd each give 1-NNA, COV and MMD.",
)  # fmt: skip
@click.option(
    "--emd", type=click.Choice(["exact-l2", "exact-squared", "kernel"]), default="exact-l2",
    help="Which EMD: their numbers do not compare. kernel is that of PVD, LION and DiT-3D.",
)  # fmt: skip
@click.option("--emd-points", type=click.IntRange(min=2), default=512,
              help="Points of each cloud in the EMD; 2048 take over a second per pair.")  # fmt: skip
@click.option(
    "--normalise", type=click.Choice(["none", "unit-box"]), default="none",
    help="Bring every cloud of both sets into the unit box first.",
)  # fmt: skip
@figures_option(
    help="Where to write figures.json and the nearest reference of each sample; a killed evaluation goes on there."
)
@replace_option
@workers_option
@device_option(default="cpu", help="Where to compute cd and the kernel's emd; cpu uses --workers.")
@limit_option(help="At most this many clouds of each category and set, and as many of both.")
@config_option
@output_options
def evaluate(
    path: Path,
    reference: Path,
    category: str | None,
    points: int,
    metrics: Sequence[Metric],
    emd: EmdVariant,
    emd_points: int,
    normalise: str,
    out: Path | None,
    overwrite: bool,
    workers: int,
    device: str,
    limit: int | None,
    output: Output,
) -> None:
    """Measure the clouds in RUN_OR_FOLDER, such as a run of "pointgen sample", against a reference set.

    \b
    pointgen evaluate run/ --reference ds/val
    pointgen evaluate run/ --reference ds/val --category chair --metric cd,emd,jsd --workers 2 --out figures/
    pointgen evaluate clouds/ --reference ShapeNetCore.v2.PC15k/03001627/val --normalise unit-box

    All figures are of the full sets, never means over batches. Exit code 3 means that some clouds could not be read;
    they are named on stderr.
    """
    from polydit.core.jobs.device import choose_device
    from polydit.pointgen.evaluate import evaluate_clouds
    from polydit.pointgen.evaluate.inputs import read_references, read_samples
    from polydit.pointgen.evaluate.tiles import remove_tiles

    if not metrics:
        raise InputError("there is nothing to measure", where="--metric", expected="cd, emd or jsd")
    if limit == 0:
        raise InputError("no cloud is left to measure", where="--limit 0")
    folder = FiguresFolder(out, _FILES)
    folder.check(overwrite=overwrite)
    samples = read_samples(path, num_points=points, category=category)
    references = read_references(reference, num_points=points, category=category)
    where = "cpu" if device == "cpu" else choose_device(device).name
    with folder.held(), _Bar(output) as bar:
        figures = evaluate_clouds(
            samples,
            references,
            metrics=metrics,
            emd=emd,
            emd_points=emd_points,
            normalise=normalise == "unit-box",
            limit=limit,
            workers=workers,
            device=where,
            tiles=out,
            on_start=bar.start,
            on_pairs=bar.update,
        )
        folder.write(figures.files())
        if out is not None:
            remove_tiles(out)
    name_rejected(figures.rejected, output)
    if out is not None:
        output.note(f"Written to {out}")
    _print(figures, output)
    exit_for(figures.rejected)


class _Bar:
    """A progress bar whose length is known only when both sets have been read."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._stack = ExitStack()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, total: int) -> None:
        progress = self._output.progress(total, what="evaluate", unit="pair")
        self._progress = self._stack.enter_context(progress)

    def update(self, pairs: int) -> None:
        self._progress.update(pairs)


def _print(figures: Figures, output: Output) -> None:
    if output.json:
        output.summary(figures.to_json())
        return
    output.table(
        [
            {"category": category, "figure": figure.name, **_cells(figure), "method": figure.method}
            for category, found in figures.categories.items()
            for figure in found
        ]
    )


def _cells(figure: Figure | Measure) -> dict[str, str]:
    if isinstance(figure, Figure):
        return {
            "value": figure.percent(),
            "95 % interval": figure.percent_interval(),
            "count": f"{figure.numerator}/{figure.denominator}",
        }
    return {"value": figure.text(), "95 % interval": figure.text_interval(), "count": "-"}
