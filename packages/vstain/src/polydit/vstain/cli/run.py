"""`vstain run`: virtual stains of tiles and whole slides into a run folder."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import click

from polydit.core.cli.options import (
    checkpoint_option,
    guidance_scale_option,
    num_steps_option,
    report_option,
    run_options,
    seed_option,
)
from polydit.core.cli.output import Output
from polydit.core.cli.sampling import cache_option
from polydit.vstain.checkpoint import Checkpoint
from polydit.vstain.cli.job import RunCall, RunJob
from polydit.vstain.slides.grid import Grid, check_blend
from polydit.vstain.slides.inputs import RunPlan, find_inputs
from polydit.vstain.slides.settings import Blend, PyramidFormat, StainSettings

_DEFAULT = {field.name: field.default for field in fields(StainSettings)}


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--stain", default=None, show_default="the checkpoint's, if it makes one", metavar="NAME",
    help="Which stain to make, such as ck or cd3.",
)  # fmt: skip
@click.option(
    "--mpp", type=click.FloatRange(0.01, 50), default=_DEFAULT["mpp"], show_default="as the files say",
    help="Microns per pixel of all inputs. A slide needs them; plain images without are taken at the network's.",
)  # fmt: skip
@click.option(
    "--patch", type=click.IntRange(min=8), default=_DEFAULT["patch"],
    help="Pixels per side of what the network is given at once; a multiple of 8.",
)  # fmt: skip
@click.option(
    "--margin", type=click.IntRange(min=0), default=_DEFAULT["margin"],
    help="Pixels of each side of a patch that only surround what it answers for.",
)  # fmt: skip
@click.option(
    "--blend", type=click.Choice(get_args(Blend)), default=_DEFAULT["blend"],
    help="crop: each place comes from one patch. feather: neighbours fade into each other over two margins.",
)  # fmt: skip
@click.option(
    "--mask/--no-mask", default=_DEFAULT["mask"], help="Outline positive cells too, where the network can."
)
@click.option("--skip/--no-skip", default=_DEFAULT["skip"], help="Skip tiles of a slide that have no tissue.")
@click.option(
    "--format", type=click.Choice(get_args(PyramidFormat)), default=_DEFAULT["format"],
    help="Of a slide's stain. ome: OME-TIFF, for QuPath and Bio-Formats. tiff: plain pyramid, for OpenSlide.",
)  # fmt: skip
@num_steps_option
@guidance_scale_option
@cache_option
@seed_option
@checkpoint_option
@report_option
@run_options
@click.pass_context
def run(ctx: click.Context, /, output: Output, **values: Any) -> None:
    """Stain each INPUT virtually: a slide, a plain image, a folder of them or a pattern. Not for diagnosis.

    \b
    vstain run slide.svs --stain ck --out run/
    vstain run tiles/*.png --stain cd3 --out run/
    vstain run slides/ --stain ck --blend feather --format tiff --out run/

    Slides become pyramids with a mask, outlines for QuPath (GeoJSON), figures and a thumbnail; plain images become PNGs
    with a mask and figures. The same command run again goes on where it stopped, within a slide too.
    """
    call = RunCall(**values, formats=(values["format"],))
    checkpoint = Checkpoint.find(call.checkpoint)
    call.check_device()
    # What is wrong with the tiles is found before a weight is loaded.
    check_blend(Grid(width=call.patch, height=call.patch, patch=call.patch, margin=call.margin), call.blend)
    settings = _settings(call, checkpoint)
    inputs = find_inputs(call.inputs, call.out)
    RunJob(
        call=call,
        checkpoint=checkpoint,
        plan=RunPlan(
            num_samples=len(inputs), seed=call.seed, shard=call.shard, limit=call.limit, inputs=inputs
        ),
        formats=call.formats or (),
        num_steps=settings.num_steps,
        guidance_scale=settings.guidance_scale,
        settings=settings,
    ).run(ctx, output)


def _settings(call: RunCall, checkpoint: Checkpoint) -> StainSettings:
    steps, scale = call.num_steps, call.guidance_scale
    return StainSettings(
        stain=checkpoint.chosen(call.stain),
        model=f"{checkpoint.name} sha256:{checkpoint.sha256[:12]}",
        digest=checkpoint.sha256,
        num_steps=checkpoint.num_steps if steps is None else steps,
        guidance_scale=checkpoint.guidance_scale if scale is None else scale,
        model_mpp=checkpoint.mpp,
        mpp=call.mpp,
        patch=call.patch,
        margin=call.margin,
        blend=call.blend,
        mask=call.mask and checkpoint.has_mask,
        skip=call.skip,
        format=call.format,
        precision="fp32" if call.dtype == "auto" else call.dtype,
    )
