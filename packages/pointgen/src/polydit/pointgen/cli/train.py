"""`pointgen train`: a network from point clouds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polydit.core.cli.config import apply_settings, dotted, effective_options
from polydit.core.cli.options import (
    MAY_DIFFER,
    config_option,
    dry_run_option,
    limit_option,
    out_option,
    output_options,
    overwrite_option,
    set_option,
)
from polydit.core.cli.output import Output
from polydit.core.errors import InputError
from polydit.core.jobs import RunFolder
from polydit.pointgen.recipe import Recipe

if TYPE_CHECKING:
    from polydit.core.models.dit import DiT
    from polydit.pointgen.cloud import Cloud

_PRODUCTS = ("training", "checkpoint", "recipe.json")


@click.command()
@click.option(
    "--data", "path", required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH",
    help="Training clouds: a data set of `pointgen data make` or `import`, or any folder of clouds or meshes.",
)  # fmt: skip
@click.option(
    "--category", default="all", metavar="all|NAMES", help="Categories to train on, separated by commas.",
)  # fmt: skip
@click.option(
    "--start", type=click.Path(exists=True, path_type=Path), default=None, show_default="from scratch",
    metavar="PATH",
    help="Published DiT weights of images (.pt) whose blocks the training starts from, such as DiT-XL/2.",
)  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", help="Where to compute.")
@out_option
@overwrite_option
@config_option
@set_option
@limit_option(help="At most this many clouds.")
@dry_run_option
@output_options
@click.pass_context
def train(
    ctx: click.Context,
    /,
    path: Path,
    category: str,
    start: Path | None,
    device: str,
    out: Path,
    overwrite: bool,
    settings: dict[str, Any],
    limit: int | None,
    dry_run: bool,
    output: Output,
) -> None:
    """Train DiT-3D on point clouds.

    \b
    pointgen data make --num 2000 --out ds/ && pointgen train --data ds/ --out model/
    pointgen train --data ShapeNetCore.v2.PC15k/ --category chair --out chair/ --set network.voxels=32
    pointgen train --data ds/ --out published/ --set objective=noise --set network.point_channels=0
    pointgen sample --checkpoint model/checkpoint --out run/

    Every setting of the recipe is a key of the TOML file or of --set; `pointgen train --dry-run` shows them all. Of a
    PC15k data set the train split is used. The same command run again goes on where it stopped, to the same losses.
    """
    recipe = apply_settings(Recipe(), settings)
    clouds = _read(path, category, recipe.num_points, limit, output)
    if dry_run:
        _print_plan(clouds, recipe, output)
        return
    with RunFolder.open(
        out,
        command="pointgen train",
        options=effective_options(ctx),
        provenance={"clouds": len(clouds)},
        overwrite=overwrite,
        free=MAY_DIFFER - {"limit"},
        products=list(_PRODUCTS),
    ):
        checkpoint = _fit(clouds, recipe, out, start, device, output)
    command = f"pointgen sample --checkpoint {checkpoint} --out run/"
    output.summary({"checkpoint": str(checkpoint), "next": command}, f"next: {command}", str(checkpoint))


def _read(path: Path, category: str, num_points: int, limit: int | None, output: Output) -> list[Cloud]:
    from polydit.pointgen.cloud import Cloud, Rejected
    from polydit.pointgen.data.pc15k import find_splits
    from polydit.pointgen.data.readers import read_clouds

    laid_out = bool(
        find_splits(path)
    )  # other folders have no splits, and their meshes need points to be drawn
    drawn = None if laid_out else max(num_points, 10_000)
    entries = list(read_clouds(path, split="train" if laid_out else None, num_points=drawn))
    rejected = [entry for entry in entries if isinstance(entry, Rejected)]
    clouds = [entry for entry in entries if isinstance(entry, Cloud)]
    if rejected:
        first = rejected[0]
        output.warn(f"{len(rejected)} files were left out, the first: {first.source}: {first.reason}")
    if category != "all":
        clouds = _of_categories(clouds, category, path)
    if not clouds:
        hint = f"Look with: pointgen data inspect {path}"
        raise InputError("no cloud to train on", where=str(path), hint=hint)
    return clouds[:limit]


def _of_categories(clouds: list[Cloud], names: str, path: Path) -> list[Cloud]:
    """Those of the categories that are named, each of which must be there."""
    wanted, there = [name.strip() for name in names.split(",")], sorted({cloud.category for cloud in clouds})
    if unknown := [name for name in wanted if name not in there]:
        expected = f"some of {', '.join(there)}"
        raise InputError(
            f"{path} has no {' or '.join(unknown)}", where=f"--category {names}", expected=expected
        )
    return [cloud for cloud in clouds if cloud.category in wanted]


def _fit(
    clouds: list[Cloud], recipe: Recipe, out: Path, start: Path | None, device: str, output: Output
) -> Path:
    from polydit.pointgen.fit import fit

    def tell(step: int, steps: int, scalars: dict[str, Any]) -> None:
        output.item(scalars)
        output.note(f"{step}/{steps}  loss {scalars['loss']:.4g}  {scalars['seconds_per_step']:.2f} s/step")

    return fit(clouds, recipe, out, start=_images_network(start), device=device, progress=tell)


def _images_network(path: Path | None) -> DiT | None:
    if path is None:
        return None
    from polydit.core.models.convert import convert_dit

    return convert_dit(path)


def _print_plan(clouds: list[Cloud], recipe: Recipe, output: Output) -> None:
    from dataclasses import asdict

    from polydit.pointgen.fit import build_network, measure

    counts = Counter(cloud.category for cloud in clouds)
    network = build_network(recipe.network, len(counts))
    normalisation = measure(clouds)
    facts = {
        "clouds": dict(sorted(counts.items())),
        "points": min(cloud.num_points for cloud in clouds),
        "mean": list(normalisation.mean),
        "scale": normalisation.scale,
        "parameters": network.num_parameters(),
    }
    named = ", ".join(f"{count} {name or 'without category'}" for name, count in sorted(counts.items()))
    lines = [f"clouds: {named}, of at least {facts['points']} points"]
    lines += [
        f"mean {', '.join(f'{value:.4g}' for value in normalisation.mean)}, scale {normalisation.scale:.4g}"
    ]
    lines += [f"network: {facts['parameters']:,} parameters"]
    lines += [f"  {key} = {value}" for key, value in dotted(asdict(recipe))]
    output.summary({"dry_run": True, **facts, "recipe": asdict(recipe)}, *lines)
