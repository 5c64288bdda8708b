"""`robopolicy report`: the report page of an evaluation."""

from __future__ import annotations

from pathlib import Path

import click

from polydit.core.cli.options import out_option, output_options
from polydit.core.cli.output import Output


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@out_option(required=False, default=None, show_default="report.html in RUN", metavar="FILE", help="The page.")
@output_options
def report(run: Path, out: Path | None, output: Output) -> None:
    """Write a page with the figures, videos, action plots and failures of RUN, a folder of "robopolicy evaluate".

    The page is one file that opens from disk without a network. The run itself is not changed.
    """
    from polydit.robopolicy.report import write_report

    page = write_report(run, out=out)
    output.summary({"report": str(page)}, f"Report: {page}")
