"""From structures to a checkpoint folder: both training stages, the latent scale between them, and saving."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_generator, item_seed
from polydit.core.training.trainer import Trainer
from polydit.molgen.batch import collate
from polydit.molgen.canonical import canonical
from polydit.molgen.data.structure import Structure
from polydit.molgen.model import MAX_ELEMENTS, AtomAutoencoder, LatentDiT
from polydit.molgen.pipeline import MolgenPipeline, flow_scheduler
from polydit.molgen.recipe import Recipe
from polydit.molgen.train import Augmentation, AutoencoderLoss, AutoencoderTask, DenoiserTask

Progress = Callable[[str, int, int, dict[str, float]], None]


def prepare(structures: Sequence[Structure], recipe: Recipe) -> list[Structure]:
    """Structures as the networks see them: canonical poses if the recipe says so.

    Raises:
        InputError: If there are none, or an element has no row in the type table.
    """
    if not structures:
        raise InputError("there is no structure to train on", hint="Look with: molgen data inspect PATH")
    for structure in structures:
        if structure.numbers.max() >= MAX_ELEMENTS:
            raise InputError(
                f"element {structure.numbers.max()} is beyond the model",
                where=structure.source or structure.id,
                expected=f"atomic numbers 1..{MAX_ELEMENTS - 1}",
            )
    if recipe.pose == "random":
        return [replace(s, positions=s.positions - s.positions.mean(0)) for s in structures]
    return [canonical(s) for s in structures]


def fit(structures: Sequence[Structure], recipe: Recipe, out: Path, progress: Progress | None = None) -> Path:
    """Train both networks and save a pipeline; run again after an interruption and it goes on.

    Args:
        structures: Training structures, molecules or crystals or both.
        recipe: Sizes and settings.
        out: Run folder; the checkpoint is `out/checkpoint`.
        progress: Told (stage, step, steps, scalars).

    Returns:
        The checkpoint folder.
    """
    items = prepare(structures, recipe)
    sizes = [s.num_atoms for s in items]
    autoencoder = _fit_autoencoder(items, sizes, recipe, out / "autoencoder", progress)
    denoiser = _fit_denoiser(items, sizes, autoencoder, recipe, out / "denoiser", progress)
    pipeline = MolgenPipeline(
        autoencoder=autoencoder,
        denoiser=denoiser,
        scheduler=flow_scheduler(),
        size_histograms=size_histograms(items),
        elements=elements(items),
        num_steps=recipe.num_steps,
        guidance_scale=recipe.guidance_scale,
    )
    pipeline.save_pretrained(out / "checkpoint")
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    return out / "checkpoint"


def size_histograms(structures: Sequence[Structure]) -> dict[str, dict[str, int]]:
    """How many structures of each kind have how many atoms."""
    counts: dict[str, Counter[int]] = {}
    for structure in structures:
        counts.setdefault(structure.kind, Counter())[structure.num_atoms] += 1
    return {kind: {str(n): c for n, c in sorted(counter.items())} for kind, counter in sorted(counts.items())}


def elements(structures: Sequence[Structure]) -> dict[str, list[int]]:
    """The atomic numbers that occur, per kind."""
    found: dict[str, set[int]] = {}
    for structure in structures:
        found.setdefault(structure.kind, set()).update(structure.numbers.tolist())
    return {kind: sorted(numbers) for kind, numbers in sorted(found.items())}


def _fit_autoencoder(
    items: Sequence[Structure], sizes: Sequence[int], recipe: Recipe, out: Path, progress: Progress | None
) -> AtomAutoencoder:
    config = recipe.autoencoder_training
    torch.manual_seed(item_seed(config.seed, "autoencoder"))
    model = AtomAutoencoder(latent_channels=recipe.latent_channels, **asdict(recipe.autoencoder))
    task = AutoencoderTask(
        model,
        AutoencoderLoss(kl=recipe.kl),
        Augmentation(
            rotate=recipe.pose == "random",
            mask_types=recipe.mask_types,
            noise_positions=recipe.noise_positions,
        ),
    )
    trainer = Trainer(task, items, collate, config, out, sizes=sizes, on_step=_on_step("autoencoder", config.steps, progress))
    trainer.fit()
    trainer.apply_ema()
    set_latent_scale(model.eval(), items)
    return model


def _fit_denoiser(
    items: Sequence[Structure],
    sizes: Sequence[int],
    autoencoder: AtomAutoencoder,
    recipe: Recipe,
    out: Path,
    progress: Progress | None,
) -> LatentDiT:
    config = recipe.denoiser_training
    torch.manual_seed(item_seed(config.seed, "denoiser"))
    model = LatentDiT(
        latent_channels=recipe.latent_channels, modulation=recipe.modulation, **asdict(recipe.denoiser)
    )
    task = DenoiserTask(
        model,
        autoencoder,
        label_dropout=recipe.label_dropout,
        self_condition=recipe.self_condition,
        rotate=recipe.pose == "random",
    )
    trainer = Trainer(task, items, collate, config, out, sizes=sizes, on_step=_on_step("denoiser", config.steps, progress))
    autoencoder.to(trainer.accelerator.device)
    trainer.fit()
    trainer.apply_ema()
    return model.eval()


def _on_step(stage: str, steps: int, progress: Progress | None) -> Callable[[int, dict[str, float]], None] | None:
    if progress is None:
        return None
    return lambda step, scalars: progress(stage, step, steps, scalars)


@torch.no_grad()
def set_latent_scale(autoencoder: AtomAutoencoder, items: Sequence[Structure], count: int = 2048) -> None:
    """Store mean and standard deviation of the latents, so that the diffusion sees channels of equal size."""
    generator = item_generator(0, "latent-scale")
    chosen = torch.randperm(len(items), generator=generator)[:count].tolist()
    device = next(autoencoder.parameters()).device
    latents: list[Any] = []
    for start in range(0, len(chosen), 256):
        batch = collate([items[i] for i in chosen[start : start + 256]]).to(device)
        posterior = autoencoder.encode(batch)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        latents.append(posterior.sample(noise)[batch.mask])
    values = torch.cat(latents)
    autoencoder.register_to_config(
        latent_mean=[round(v, 6) for v in values.mean(0).tolist()],
        latent_std=[round(v, 6) for v in values.std(0).tolist()],
    )
