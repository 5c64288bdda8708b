"""`pointgen report`: the report page of a run."""

from __future__ import annotations

from pathlib import Path

import click

from polydit.core.cli.options import limit_option, output_options
from polydit.core.cli.output import Output
from polydit.core.cli.report import page_option, run_argument, say_written, training_set_option


@click.command()
@run_argument
@training_set_option(
    show_default="no comparison",
    help="Training set: show the nearest training shape beside each sample.",
)
@page_option
@limit_option(default=64, show_default=True, help="Compare at most this many samples with --train.")
@output_options
def report(run: Path, train: Path | None, out: Path | None, limit: int, output: Output) -> None:
    """Write a page with rotatable views, counts and failures of RUN, a folder of "pointgen sample".

    \b
    pointgen report run/
    pointgen report run/ --train ds/ --out report.html

    The page is one file that opens from disk without a network. The run itself is not changed.
    """
    from polydit.pointgen.report import write_report

    page = write_report(run, train=train, limit=limit, out=out)
    say_written(page, output, figures=page.with_name("figures.json"))
