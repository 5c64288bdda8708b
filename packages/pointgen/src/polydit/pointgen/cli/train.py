"""`pointgen train`: a network from point clouds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polydit.core.cli.config import apply_settings
from polydit.core.cli.training import Tell, TrainingCall, TrainingJob, data_option, training_options
from polydit.core.errors import InputError
from polydit.pointgen.recipe import Recipe

if TYPE_CHECKING:
    from polydit.core.models.dit import DiT
    from polydit.pointgen.cloud import Cloud
    from polydit.pointgen.pipeline import PointPipeline


@dataclass(frozen=True, kw_only=True)
class _Training(TrainingJob[Recipe]):
    command = "pointgen train"
    next_command = "pointgen sample"
    products = ("training", "checkpoint", "recipe.json")

    clouds: list[Cloud]
    start: Path | None

    def provenance(self) -> dict[str, Any]:
        return {"clouds": len(self.clouds)}

    def fit(self, tell: Tell) -> Path:
        from polydit.pointgen.fit import fit

        start, call = _read_start(self.start), self.call
        return fit(self.clouds, self.recipe, call.out, start=start, device=call.device, progress=tell)

    def plan(self) -> tuple[dict[str, Any], list[str]]:
        from polydit.pointgen.fit import build_network, measure

        counts = Counter(cloud.category for cloud in self.clouds)
        normalisation = measure(self.clouds)
        facts = {
            "clouds": dict(sorted(counts.items())),
            "points": min(cloud.num_points for cloud in self.clouds),
            "mean": list(normalisation.mean),
            "scale": normalisation.scale,
            "parameters": build_network(self.recipe.network, len(counts)).num_parameters(),
        }
        named = ", ".join(f"{count} {name or 'without category'}" for name, count in sorted(counts.items()))
        mean = ", ".join(f"{value:.4g}" for value in normalisation.mean)
        return facts, [
            f"clouds: {named}, of at least {facts['points']} points",
            f"mean {mean}, scale {normalisation.scale:.4g}",
            f"network: {facts['parameters']:,} parameters",
        ]


@click.command()
@data_option(
    help="Training clouds: a data set of `pointgen data make` or `import`, or any folder of clouds or meshes."
)
@click.option(
    "--category", default="all", metavar="all|NAMES", help="Categories to train on, separated by commas.",
)  # fmt: skip
@click.option(
    "--start", type=click.Path(exists=True, path_type=Path), default=None, show_default="from scratch",
    metavar="PATH",
    help="What the training starts from: a checkpoint folder, or published DiT weights of images (.pt) whose blocks it "
    "takes, such as DiT-XL/2.",
)  # fmt: skip
@training_options(things="clouds")
def train(data: Path, category: str, start: Path | None, call: TrainingCall) -> None:
    """Train DiT-3D on point clouds.

    \b
    pointgen data make --num 2000 --out ds/ && pointgen train --data ds/ --out model/
    pointgen train --data ds/ --start model/checkpoint --out tuned/ --set training.steps=500
    pointgen train --data ShapeNetCore.v2.PC15k/ --category chair --out chair/ --set network.voxels=32
    pointgen train --data ds/ --out published/ --set objective=noise --set network.point_channels=0
    pointgen sample --checkpoint model/checkpoint --out run/

    Every setting of the recipe is a key of the TOML file or of --set; `pointgen train --dry-run` shows them all. Of a
    PC15k data set the train split is used. The same command run again goes on where it stopped, to the same losses.
    """
    recipe = apply_settings(Recipe(), call.settings)
    clouds = _read(data, category, recipe.num_points, call)
    _Training(call=call, recipe=recipe, clouds=clouds, start=start).run()


def _read(path: Path, category: str, num_points: int, call: TrainingCall) -> list[Cloud]:
    from polydit.pointgen.cloud import Cloud, Rejected
    from polydit.pointgen.data.pc15k import find_splits
    from polydit.pointgen.data.readers import read_clouds

    # Other folders have no splits, and their meshes need points to be drawn.
    laid_out = bool(find_splits(path))
    drawn = None if laid_out else max(num_points, 10_000)
    entries = list(read_clouds(path, split="train" if laid_out else None, num_points=drawn))
    rejected = [entry for entry in entries if isinstance(entry, Rejected)]
    clouds = [entry for entry in entries if isinstance(entry, Cloud)]
    if rejected:
        first = rejected[0]
        call.output.warn(f"{len(rejected)} files were left out, the first: {first.source}: {first.reason}")
    if category != "all":
        clouds = _of_categories(clouds, category, path)
    if not clouds:
        hint = f"Look with: pointgen data inspect {path}"
        raise InputError("no cloud to train on", where=str(path), hint=hint)
    return clouds[: call.limit]


def _of_categories(clouds: list[Cloud], names: str, path: Path) -> list[Cloud]:
    """Those of the categories that are named, each of which must be there."""
    wanted, there = [name.strip() for name in names.split(",")], sorted({cloud.category for cloud in clouds})
    if unknown := [name for name in wanted if name not in there]:
        expected = f"some of {', '.join(there)}"
        raise InputError(
            f"{path} has no {' or '.join(unknown)}", where=f"--category {names}", expected=expected
        )
    return [cloud for cloud in clouds if cloud.category in wanted]


def _read_start(path: Path | None) -> DiT | PointPipeline | None:
    if path is None:
        return None
    if path.is_dir():
        from polydit.pointgen.pipeline import PointPipeline

        return PointPipeline.from_pretrained(path)
    from polydit.core.models.convert import convert_dit

    return convert_dit(path)
