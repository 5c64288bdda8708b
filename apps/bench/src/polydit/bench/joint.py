"""ADiT's claim at our scale: one model of molecules and crystals against two models of one kind each.

Same sizes, same number of steps, same number of structures per step; the joint model shares them between the kinds.

    python -m polydit.bench.joint --data ds/ --out joint/
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from polydit.molgen.data.structure import Structure
    from polydit.molgen.recipe import Recipe

KINDS = ("molecule", "crystal")


def small_recipe(autoencoder_steps: int, denoiser_steps: int) -> Recipe:
    """Both networks at about a third of the starter's size."""
    from polydit.core.training.config import TrainConfig
    from polydit.molgen.recipe import NetworkSize, Recipe

    training: dict[str, Any] = {"batch_size": 256, "accumulate": 2, "muon_learning_rate": 0.02, "ema": 0.995}
    return Recipe(
        autoencoder=NetworkSize(width=96, depth=2, heads=3),
        denoiser=NetworkSize(width=160, depth=5, heads=5),
        autoencoder_training=TrainConfig(steps=autoencoder_steps, learning_rate=2e-3, **training),
        denoiser_training=TrainConfig(steps=denoiser_steps, learning_rate=1e-3, **training),
    )


@click.command()
@click.option("--data", "paths", multiple=True, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--autoencoder-steps", type=click.IntRange(min=1), default=800)
@click.option("--denoiser-steps", type=click.IntRange(min=1), default=1500)
@click.option("--num-samples", type=click.IntRange(min=1), default=500, help="Of each kind.")
def joint(
    paths: tuple[Path, ...], out: Path, autoencoder_steps: int, denoiser_steps: int, num_samples: int
) -> None:
    """Train joint and separate models side by side, sample and evaluate; results in OUT/joint.json."""
    from polydit.molgen.data.readers import read_structures
    from polydit.molgen.data.structure import Structure

    read = [s for path in paths for s in read_structures(path) if isinstance(s, Structure)]
    recipe = small_recipe(autoencoder_steps, denoiser_steps)
    rows: list[dict[str, Any]] = []
    for name, kinds in (("joint", KINDS), ("molecules alone", KINDS[:1]), ("crystals alone", KINDS[1:])):
        chosen = [s for s in read if s.kind in kinds]
        rows += run(name, kinds, chosen, recipe, out / name.replace(" ", "-"), num_samples)
        (out / "joint.json").write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        click.echo(
            "  ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
        )


def run(
    name: str,
    kinds: Sequence[str],
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


def sample(pipeline: Any, kind: str, num_samples: int) -> list[Structure]:
    """As `molgen sample` draws them, in batches of similar size; what is no structure at all counts as invalid."""
    import torch

    from polydit.core.jobs.seeds import item_seed
    from polydit.molgen.data.structure import Structure
    from polydit.molgen.pipeline import SampleRequest

    histogram = {int(size): count for size, count in pipeline.config.size_histograms[kind].items()}
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor(list(histogram.values()), dtype=torch.float64)
    drawn = torch.multinomial(weights, num_samples, replacement=True, generator=generator)
    sizes = sorted(list(histogram)[int(i)] for i in drawn)
    requests = [
        SampleRequest(id=f"{kind}-{i}", kind=kind, num_atoms=size, seed=item_seed(0, f"{kind}-{i}"))  # type: ignore[arg-type]
        for i, size in enumerate(sizes)
    ]
    made = [s for start in range(0, num_samples, 125) for s in pipeline(requests[start : start + 125])]
    return [s for s in made if isinstance(s, Structure)]


if __name__ == "__main__":
    joint()
