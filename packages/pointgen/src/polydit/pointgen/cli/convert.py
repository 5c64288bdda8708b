"""`pointgen convert`: a published checkpoint to a folder that `--checkpoint` takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from polydit.core.cli.conversion import Conversion, conversion_options
from polydit.core.errors import InputError

if TYPE_CHECKING:
    from polydit.pointgen.cloud import Normalisation

_ABOUT = (
    "DiT-3D (Mo et al. 2023), read by `pointgen convert` with its {weights} weights. Categories: {categories}.\n"
    "The file does not hold the mean and the scale of its data: mean {mean}, scale {scale:.6g} were {found}."
)


@click.command()
@click.option(
    "--category", required=True, metavar="NAMES",
    help="Its categories in the order of their labels, separated by commas.",
)  # fmt: skip
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), default=None,
    help="The data it was trained on (PC15k): mean and scale are measured there.",
)  # fmt: skip
@click.option("--mean", default=None, metavar="X,Y,Z", help="Their mean, if known.")
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), default=None, help="Their deviation.")
@click.option(
    "--schedule", type=click.Choice(["auto", "linear", "warm0.1", "warm0.2", "warm0.5"]), default="auto",
    help="Noise schedule of its training. auto: warm0.1 for airplanes alone, else linear, as published.",
)  # fmt: skip
@click.option(
    "--weights", type=click.Choice(["model_state", "ema"]), default="model_state",
    help="The trained weights, which published sampling uses, or their running average.",
)  # fmt: skip
@click.option(
    "--num-heads", type=click.IntRange(min=1), default=None, show_default="of the published size",
    help="Attention heads.",
)  # fmt: skip
@conversion_options
def convert(
    category: str,
    data: Path | None,
    mean: str | None,
    scale: float | None,
    schedule: str,
    weights: Literal["model_state", "ema"],
    num_heads: int | None,
    call: Conversion,
) -> None:
    """Turn a published DiT-3D checkpoint (.pth) into our layout.

    Attention is global, also in checkpoints of the window model: as published they were trained so. The file is read
    without running any code in it.

    \b
    pointgen convert chair_s4.pth --category chair --data ShapeNetCore.v2.PC15k/ --out dit3d-s4/
    pointgen sample --checkpoint dit3d-s4/ --out run/
    """
    from polydit.pointgen.cloud import Normalisation
    from polydit.pointgen.convert import convert_point_dit
    from polydit.pointgen.pipeline import PointPipeline
    from polydit.pointgen.schedules import noise_scheduler

    categories = tuple(name.strip() for name in category.split(","))
    if data is not None:
        normalisation, found = _measured(data, categories), f"measured on {data.name}"
    elif mean is not None and scale is not None:
        normalisation, found = Normalisation(_three(mean), scale), "given by hand"
    else:
        raise InputError(
            "the file does not hold the mean and the scale of its data",
            hint="Give --data with the data set that it was trained on, or --mean and --scale",
        )
    network = convert_point_dit(call.source, heads=num_heads, weights=weights)
    if network.config.num_classes < len(categories):
        problem = f"the checkpoint knows {network.config.num_classes} categories"
        raise InputError(problem, where=f"--category {category}")
    if schedule == "auto":
        schedule = "warm0.1" if categories == ("airplane",) else "linear"
    pipeline = PointPipeline(
        network,
        noise_scheduler(schedule),
        categories=categories,
        mean=normalisation.mean,
        scale=normalisation.scale,
        num_steps=1000,
    )
    about = _ABOUT.format(
        weights=weights,
        categories=", ".join(categories),
        mean=", ".join(f"{value:.6g}" for value in normalisation.mean),
        scale=normalisation.scale,
        found=found,
    )
    count = network.num_parameters()
    call.finish(
        pipeline.save_pretrained,
        about=about,
        weights=weights,
        facts={"parameters": count, "schedule": schedule},
        lines=[f"{count:,} parameters, schedule {schedule}"],
    )


def _measured(data: Path, categories: tuple[str, ...]) -> Normalisation:
    from polydit.pointgen.cloud import Cloud
    from polydit.pointgen.data.readers import read_clouds
    from polydit.pointgen.fit import measure

    entries = [
        entry
        for name in categories
        for entry in read_clouds(data, category=name, split="train")
        if isinstance(entry, Cloud)
    ]
    return measure(entries)


def _three(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError("is no mean", where=f"--mean {text}", expected="three numbers") from None
    return x, y, z
