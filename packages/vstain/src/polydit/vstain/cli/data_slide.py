"""`vstain data slide`: a procedural slide as a pyramid."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click

from polydit.core.cli.options import config_option, out_option, output_options, overwrite_option, seed_option
from polydit.core.cli.output import Output
from polydit.vstain.data.recipe import STAINS
from polydit.vstain.slides.settings import PyramidFormat, SlideRecipe

_DEFAULT = {field.name: field.default for field in fields(SlideRecipe)}


@click.command()
@click.option(
    "--size",
    type=click.IntRange(min=16),
    default=_DEFAULT["size"],
    help="Pixels of each side, of 0.5 microns.",
)
@click.option(
    "--stain", type=click.Choice(STAINS), default=_DEFAULT["stain"], help="Which stain lies beside it."
)
@click.option(
    "--coverage", type=click.FloatRange(0, 1), default=_DEFAULT["coverage"],
    help="Share of the endless slide that is tissue; that of a part of it differs.",
)  # fmt: skip
@seed_option(default=_DEFAULT["seed"], help="Which slide.")
@click.option(
    "--format", type=click.Choice(get_args(PyramidFormat)), default=_DEFAULT["format"],
    help="tiff: a page per level, for OpenSlide too. ome: OME-TIFF.",
)  # fmt: skip
@out_option(help="Folder of the three files; made if it is missing.", metavar="DIR")
@overwrite_option(help="Replace files that are there.")
@config_option
@output_options
def slide(out: Path, overwrite: bool, output: Output, **recipe: Any) -> None:
    """Write a procedural slide of any size: H&E, its true stain and its true mask as pyramids.

    \b
    vstain data slide --size 8192 --coverage 0.35 --out slide/
    vstain run slide/he.tif --stain ck --out run/
    """
    from polydit.vstain.slides.making import make_slide

    asked = SlideRecipe(**recipe)
    with output.progress(asked.bands, what="rows of pieces", unit="row") as progress:
        paths = make_slide(out, asked, overwrite=overwrite, on_band=progress.update)
    output.summary({"out": str(out), "files": [str(path) for path in paths]}, *map(str, paths))
