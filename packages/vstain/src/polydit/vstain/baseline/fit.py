"""From pairs to a checkpoint folder of pix2pix; interrupted, it goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from polydit.core.jobs.seeds import item_seed
from polydit.core.training.trainer import Trainer
from polydit.vstain.baseline.networks import PatchCritic, UNetGenerator
from polydit.vstain.baseline.pipeline import GanPipeline
from polydit.vstain.baseline.recipe import GanRecipe
from polydit.vstain.baseline.train import GanNetworks, GanTask
from polydit.vstain.data.pair_file import PairFile
from polydit.vstain.fit import Pairs, Progress, mpp_of, shared, stains_of
from polydit.vstain.train import Collate


def fit_gan(
    files: Sequence[PairFile],
    recipe: GanRecipe,
    out: Path,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Train pix2pix and save a pipeline; run again after an interruption and it goes on.

    Args:
        files: Training pairs; each names its stain. Masks are not used.
        recipe: Sizes and settings.
        out: Run folder; the checkpoint is `out/checkpoint`.
        device: "auto", or "cpu" to leave accelerators alone.
        progress: Told (step, steps, scalars).

    Returns:
        The checkpoint folder.

    Raises:
        InputError: As of `polydit.vstain.fit.fit`.
    """
    used, stains, mpp = shared(files, recipe.share), stains_of(files), mpp_of(files, recipe.mpp)
    torch.manual_seed(item_seed(recipe.training.seed, "network"))
    networks = build_networks(recipe, len(stains))
    steps = recipe.training.steps
    trainer = Trainer(
        GanTask(networks, recipe.crop, recipe.l1_weight),
        Pairs(used),
        Collate(stains, recipe.crop),
        recipe.training,
        out / "training",
        device=device,
        on_step=None if progress is None else lambda step, scalars: progress(step, steps, scalars),
    )
    trainer.optimizers = [trainer.accelerator.prepare(_adam(networks, recipe))]
    trainer.fit()
    pipeline = GanPipeline(network=networks.generator.eval(), stains=stains, mpp=mpp)
    pipeline.save_pretrained(out / "checkpoint")
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    return out / "checkpoint"


def build_networks(recipe: GanRecipe, num_stains: int) -> GanNetworks:
    """Untrained generator and critic."""
    generator = UNetGenerator(width=recipe.width, depth=recipe.depth, num_stains=num_stains)
    networks = GanNetworks(generator, PatchCritic(recipe.critic_width, num_stains))
    return networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it


def _adam(networks: GanNetworks, recipe: GanRecipe) -> torch.optim.Optimizer:
    """One for both networks: each weight has moments of its own, so that two would do the same."""
    rate = recipe.training.learning_rate
    optimizer = torch.optim.Adam(networks.parameters(), lr=rate, betas=(recipe.beta1, 0.999), fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = rate  # the peak, as the core's schedule reads it
    return optimizer
