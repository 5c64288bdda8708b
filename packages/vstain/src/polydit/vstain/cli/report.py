"""`vstain report`: the report page of a run."""

from __future__ import annotations

from pathlib import Path

import click

from polydit.core.cli.options import limit_option, output_options
from polydit.core.cli.output import Output
from polydit.core.cli.report import page_option, run_argument, say_written
from polydit.core.errors import InputError
from polydit.vstain.cli.evaluate import baseline_option, reference_option


@click.command()
@run_argument
@reference_option(default=None, show_default="no comparison")
@baseline_option
@page_option
@limit_option(default=200, show_default=True, help="Measure at most this many items with --reference.")
@output_options
def report(
    run: Path, reference: Path | None, baseline: Path | None, out: Path | None, limit: int, output: Output
) -> None:
    """Write a page of RUN, a folder of "vstain run": H&E against virtual stain, DAB maps, outlines and figures.

    \b
    vstain report run/
    vstain report run/ --reference ds/test/IHC --baseline gan/ --out report.html

    The page is one file that opens from disk without a network. The run itself is not changed.
    """
    from polydit.vstain.report import write_report

    if baseline is not None and reference is None:
        raise InputError(
            "there is nothing to measure it against", where="--baseline", expected="--reference too"
        )
    page = write_report(run, reference=reference, baseline=baseline, limit=limit, out=out)
    say_written(page, output, figures=page.with_name("figures.json"))
