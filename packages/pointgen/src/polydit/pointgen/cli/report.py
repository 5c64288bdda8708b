"""`pointgen report`: the report page of a run."""

from __future__ import annotations

from pathlib import Path

import click

from polydit.core.cli.options import limit_option, out_option, output_options
from polydit.core.cli.output import Output


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--train", type=click.Path(exists=True, path_type=Path), metavar="PATH", default=None,
    show_default="no comparison",
    help="Training set: show the nearest training shape beside each sample.",
)  # fmt: skip
@out_option(
    required=False, default=None, show_default="report.html in RUN", metavar="FILE",
    help="The page; figures.json is written beside it.",
)  # fmt: skip
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
    figures = page.with_name("figures.json")
    output.summary({"report": str(page), "figures": str(figures)}, f"Figures: {figures}", f"Report: {page}")
