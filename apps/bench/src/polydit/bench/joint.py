"""ADiT's claim at our scale: one model of molecules and crystals against two models of one kind each.

Same sizes, same number of steps, and in each step as many structures of a kind alone as the joint model sees of it.

    python -m polydit.bench.joint --data ds/ --out joint/
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from polydit.core.cli.config import apply_settings
from polydit.core.cli.options import config_option, set_option

if TYPE_CHECKING:
    from polydit.core.training.config import TrainConfig
    from polydit.molgen.data.structure import Structure
    from polydit.molgen.recipe import Recipe

KINDS: tuple[Literal["molecule", "crystal"], ...] = ("molecule", "crystal")


def small_recipe() -> Recipe:
    """Both networks at about a third of the starter's size."""
    from polydit.core.training.config import TrainConfig
    from polydit.molgen.recipe import NetworkSize, Recipe

    training: dict[str, Any] = {"batch_size": 256, "accumulate": 2, "muon_learning_rate": 0.02, "ema": 0.995}
    return Recipe(
        autoencoder=NetworkSize(width=96, depth=2, heads=3),
        denoiser=NetworkSize(width=160, depth=5, heads=5),
        autoencoder_training=TrainConfig(steps=800, learning_rate=2e-3, **training),
        denoiser_training=TrainConfig(steps=1500, learning_rate=1e-3, **training),
    )


def alone(recipe: Recipe, kind: str) -> Recipe:
    """The recipe of a model of one kind: in each step the joint model's share of it, as one batch."""
    share = recipe.molecule_share if kind == "molecule" else 1.0 - recipe.molecule_share

    def training(joint: TrainConfig) -> TrainConfig:
        return replace(joint, batch_size=round(joint.batch_size * share), accumulate=1)

    return replace(
        recipe,
        autoencoder_training=training(recipe.autoencoder_training),
        denoiser_training=training(recipe.denoiser_training),
        molecule_share=1.0 if kind == "molecule" else 0.0,
    )


@click.command()
@click.option("--data", "paths", multiple=True, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@config_option
@set_option
@click.option("--num-samples", type=click.IntRange(min=1), default=500, help="Of each kind.")
def joint(
    paths: tuple[Path, ...],
    out: Path,
    settings: dict[str, Any],
    num_samples: int,
) -> None:
    """Train joint and separate models side by side, sample and evaluate; results in OUT/joint.json.

    --config takes a recipe of `molgen train`, such as the starter's; --set changes single settings of it. Without them
    the networks are a third of the starter's size.
    """
    from polydit.molgen.data.readers import read_structures
    from polydit.molgen.data.structure import Structure

    read = [s for path in paths for s in read_structures(path) if isinstance(s, Structure)]
    recipe = apply_settings(small_recipe(), settings)
    rows: list[dict[str, Any]] = []
    for name, kinds in (("joint", KINDS), ("molecules alone", KINDS[:1]), ("crystals alone", KINDS[1:])):
        chosen = [s for s in read if s.kind in kinds]
        own = recipe if kinds == KINDS else alone(recipe, kinds[0])
        rows += run(name, kinds, chosen, own, out / name.replace(" ", "-"), num_samples)
        (out / "joint.json").write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        click.echo(
            "  ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
        )


def run(
    name: str,
    kinds: Sequence[Literal["molecule", "crystal"]],
    structures: Sequence[Structure],
    recipe: Recipe,
    out: Path,
    num_samples: int,
) -> list[dict[str, Any]]:
    """Train one model and measure what it makes of each of its kinds."""
    from polydit.molgen.evaluate.evaluator import evaluate_structures
    from polydit.molgen.fit import fit
    from polydit.molgen.pipeline import MolgenPipeline

    started = time.perf_counter()
    pipeline = MolgenPipeline.from_pretrained(fit(structures, recipe, out))
    seconds = time.perf_counter() - started
    rows = []
    for kind in kinds:
        made = sample(pipeline, kind, num_samples)
        common = {"model": name, "kind": kind, "trained_on": len(structures), "training_seconds": seconds}
        for figure in evaluate_structures(made).figures:
            if figure.name in FIGURES:
                rows.append(
                    {**common, "figure": figure.name, "value": figure.value, "of": figure.denominator}
                )
    return rows


FIGURES = (
    "edm_valid",
    "rdkit_valid_and_connected",
    "crystal_structure_valid",
    "crystal_smact_valid",
    "crystal_valid",
)


def sample(pipeline: Any, kind: Literal["molecule", "crystal"], num_samples: int) -> list[Structure]:
    """As `molgen sample` draws them, in batches of similar size; what is no structure at all counts as invalid."""
    from polydit.molgen.data.structure import Structure
    from polydit.molgen.formulas import FormulaDistribution
    from polydit.molgen.pipeline import SampleRequest
    from polydit.molgen.sampling_plan import BatchLimit, SamplingPlan, SizeDistribution

    config, told = pipeline.config, kind == "molecule" and bool(pipeline.config.formulas)
    plan = SamplingPlan(
        kind=kind,
        num_samples=num_samples,
        sizes=SizeDistribution.parse("auto", config.size_histograms[kind], kind=kind),
        formulas=FormulaDistribution.read(config.formulas) if told else None,
    )
    made = []
    for batch in plan.batches(BatchLimit(items=125)):
        made += pipeline(
            [
                SampleRequest(id=s.id, kind=kind, num_atoms=s.num_atoms, seed=s.seed, formula=s.formula)
                for s in batch
            ]
        )
    return [s for s in made if isinstance(s, Structure)]


if __name__ == "__main__":
    joint()
