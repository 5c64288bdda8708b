"""`robopolicy report`: the report page of an evaluation."""

from __future__ import annotations

from pathlib import Path

import click

from polydit.core.cli.options import output_options
from polydit.core.cli.output import Output
from polydit.core.cli.report import page_option, run_argument, say_written


@click.command()
@run_argument
@page_option(help="The page.")
@output_options
def report(run: Path, out: Path | None, output: Output) -> None:
    """Write a page with the figures, videos, action plots and failures of RUN, a folder of "robopolicy evaluate".

    The page is one file that opens from disk without a network. The run itself is not changed.
    """
    from polydit.robopolicy.report import write_report

    say_written(write_report(run, out=out), output)
