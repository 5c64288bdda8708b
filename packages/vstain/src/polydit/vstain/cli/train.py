"""`vstain train`: a network from pairs of H&E and a stain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polydit.core.cli.config import apply_settings
from polydit.core.cli.training import Tell, TrainingCall, TrainingJob, data_option, training_options
from polydit.core.errors import InputError
from polydit.vstain.baseline.recipe import GanRecipe
from polydit.vstain.recipe import Recipe

if TYPE_CHECKING:
    from polydit.vstain.data.pair_file import PairFile


@dataclass(frozen=True, kw_only=True)
class _Training(TrainingJob[Recipe | GanRecipe]):
    command = "vstain train"
    next_command = "vstain run TILES"
    products = ("training", "checkpoint", "recipe.json")

    files: list[PairFile]

    def provenance(self) -> dict[str, Any]:
        return {"pairs": len(self.files)}

    def fit(self, tell: Tell) -> Path:
        from polydit.vstain.baseline.fit import fit_gan
        from polydit.vstain.fit import fit

        recipe, call = self.recipe, self.call
        if isinstance(recipe, GanRecipe):
            return fit_gan(self.files, recipe, call.out, device=call.device, progress=tell)
        return fit(self.files, recipe, call.out, device=call.device, progress=tell)

    def plan(self) -> tuple[dict[str, Any], list[str]]:
        from polydit.vstain.baseline.fit import build_networks
        from polydit.vstain.fit import build_network, mpp_of, shared, stains_of

        recipe = self.recipe
        stains, mpp = stains_of(self.files), mpp_of(self.files, recipe.mpp)
        used = Counter(file.stain for file in shared(self.files, recipe.share))
        network = (
            build_networks(recipe, len(stains)).generator
            if isinstance(recipe, GanRecipe)
            else build_network(recipe.network, len(stains))
        )
        facts = {
            "pairs": {stain: used[stain] for stain in stains},
            "mpp": mpp,
            "parameters": network.num_parameters(),
        }
        named = ", ".join(f"{used[stain]} {stain}" for stain in stains)
        return facts, [
            f"pairs: {named}, at {mpp:g} microns per pixel",
            f"network: {facts['parameters']:,} parameters",
        ]


@click.command()
@data_option(
    help="Pairs: a data set of `vstain data make` or `import`, a CSV manifest, or a layout of BCI, MIST or HEMIT."
)
@click.option(
    "--stain", default=None, show_default="all", metavar="NAME",
    help="Only this stain; where the data name none, the stain of all pairs.",
)  # fmt: skip
@click.option(
    "--network", type=click.Choice(["stain-diffuser", "pix2pix"]), default="stain-diffuser",
    help="What is trained; pix2pix is the baseline to compare with.",
)  # fmt: skip
@training_options(things="pairs")
def train(data: Path, stain: str | None, network: str, call: TrainingCall) -> None:
    """Train a network on pairs of H&E and a stain.

    \b
    vstain data make --num 2000 --out ds/ && vstain train --data ds/ --out model/
    vstain train --data MIST/HER2 --stain her2 --out her2/ --set mpp=0.4661
    vstain train --data ds/ --network pix2pix --out baseline/
    vstain run slide.svs --stain ck --checkpoint model/checkpoint --out run/

    Every setting of the recipe is a key of the TOML file or of --set; `vstain train --dry-run` shows them all. Of data
    with splits the train split is used. The same command run again goes on where it stopped, to the same losses.
    """
    recipe = apply_settings(GanRecipe() if network == "pix2pix" else Recipe(), call.settings)
    _Training(call=call, recipe=recipe, files=_read(data, stain, call.limit)).run()


def _read(path: Path, stain: str | None, limit: int | None) -> list[PairFile]:
    from polydit.vstain.data.find import find_pairs

    files = find_pairs(path, stain=stain)
    if any(file.split for file in files):
        files = [file for file in files if file.split == "train"]
    if not files:
        hint = f"Look with: vstain data inspect {path}"
        raise InputError("no pair to train on", where=str(path), hint=hint)
    return files[:limit]
