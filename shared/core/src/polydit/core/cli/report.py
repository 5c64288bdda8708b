"""What the commands `report` share: the run, the page, and what is said when it is written."""

from __future__ import annotations

from pathlib import Path

import click

from polydit.core.cli.options import SharedOption
from polydit.core.cli.output import Output

run_argument = click.argument("run", type=click.Path(exists=True, path_type=Path))
training_set_option = SharedOption(
    "--train", type=click.Path(exists=True, path_type=Path), metavar="PATH", default=None
)
page_option = SharedOption(
    "--out", "-o", type=click.Path(path_type=Path), default=None, show_default="report.html in RUN",
    metavar="FILE", help="The page; figures.json is written beside it.",
)  # fmt: skip


def say_written(page: Path, output: Output, *, figures: Path | None = None) -> None:
    """Ends the command: the page, after the numbers beside it if there are any."""
    record, lines = {"report": str(page)}, [f"Report: {page}"]
    if figures is not None:
        record["figures"] = str(figures)
        lines.insert(0, f"Figures: {figures}")
    output.summary(record, *lines)
