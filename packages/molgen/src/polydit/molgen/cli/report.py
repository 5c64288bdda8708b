"""`molgen report`: the report page of a run."""

from __future__ import annotations

from pathlib import Path

import click

from polydit.core.cli.options import limit_option, output_options
from polydit.core.cli.output import Output
from polydit.core.cli.report import page_option, run_argument, say_written, training_set_option


@click.command()
@run_argument
@training_set_option(
    show_default="what the checkpoint remembers",
    help="Training set: structures to compare distributions with and to measure novelty against.",
)
@page_option
@limit_option(default=2000, show_default=True, help="Measure at most this many structures, the first.")
@output_options
def report(run: Path, train: Path | None, out: Path | None, limit: int, output: Output) -> None:
    """Write a page with the figures, distributions, views and failures of RUN, a folder of "molgen sample".

    \b
    molgen report run/
    molgen report run/ --train gdb9.sdf --out report.html

    The page is one file that opens from disk without a network. The run itself is not changed.
    """
    from polydit.molgen.report import write_report

    page = write_report(run, train=train, limit=limit, out=out)
    say_written(page, output, figures=page.with_name("figures.json"))
