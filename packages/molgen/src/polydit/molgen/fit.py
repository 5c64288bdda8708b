"""From structures to a checkpoint folder: both training stages, the latent scale between them, and saving."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_generator, item_seed
from polydit.core.objectives import FlowMatching, LogitNormalTimes
from polydit.core.training.config import TrainConfig
from polydit.core.training.trainer import Task, Trainer
from polydit.molgen.batch import CRYSTAL, KIND_LABELS, MAX_ELEMENTS, MOLECULE, collate
from polydit.molgen.canonical import canonical
from polydit.molgen.data.structure import Structure
from polydit.molgen.model import AtomAutoencoder, LatentDiT
from polydit.molgen.pipeline import MolgenPipeline, flow_scheduler
from polydit.molgen.recipe import Recipe
from polydit.molgen.train import (
    Augmentation,
    AutoencoderLoss,
    AutoencoderTask,
    DenoiserTask,
    published_objective,
)

Progress = Callable[[str, int, int, dict[str, Any]], None]


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


def fit(
    structures: Sequence[Structure],
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Train both networks and save a pipeline; run again after an interruption and it goes on.

    Args:
        structures: Training structures, molecules or crystals or both.
        recipe: Sizes and settings.
        out: Run folder; the checkpoint is `out/checkpoint`.
        device: "auto", or "cpu" to leave accelerators alone.
        progress: Told (stage, step, steps, scalars).

    Returns:
        The checkpoint folder.
    """
    items = prepare(structures, recipe)
    shares = {"molecule": recipe.molecule_share, "crystal": 1.0 - recipe.molecule_share}
    autoencoder = _fit_autoencoder(items, recipe, _Stage("autoencoder", out, device, progress, shares))
    denoiser = _fit_denoiser(items, autoencoder, recipe, _Stage("denoiser", out, device, progress, shares))
    pipeline = MolgenPipeline(
        autoencoder=autoencoder,
        denoiser=denoiser,
        scheduler=flow_scheduler(),
        size_histograms=size_histograms(items),
        elements=elements(items),
        num_steps=recipe.num_steps,
        guidance_scale=recipe.guidance_scale,
        self_condition=recipe.self_condition > 0.0,
        stochastic=recipe.stochastic,
        centred_prior=recipe.centred_prior,
        formulas=formulas(items) if recipe.tell_molecule_formula else None,
    )
    pipeline.save_pretrained(out / "checkpoint")
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    return out / "checkpoint"


def build_autoencoder(recipe: Recipe) -> AtomAutoencoder:
    """An untrained autoencoder of the recipe's size."""
    return AtomAutoencoder(latent_channels=recipe.latent_channels, **asdict(recipe.autoencoder))


def build_denoiser(recipe: Recipe) -> LatentDiT:
    """An untrained denoiser of the recipe's size."""
    return LatentDiT(
        latent_channels=recipe.latent_channels,
        modulation=recipe.modulation,
        preconditioned=recipe.preconditioned,
        formula=max(recipe.tell_molecule_formula, recipe.tell_crystal_formula) > 0.0,
        **asdict(recipe.denoiser),
    )


def objective(recipe: Recipe) -> FlowMatching:
    """The published objective with the recipe's times and weight."""
    chosen = replace(published_objective(), max_weight_time=recipe.max_weight_time)
    if recipe.times == "uniform":
        return chosen
    # noise over signal is (1 - t) / t: the logit of t is minus the logarithm of EDM's sigma
    return replace(chosen, times=LogitNormalTimes(mean=1.2, std=1.2))


def size_histograms(structures: Sequence[Structure]) -> dict[str, dict[str, int]]:
    """How many structures of each kind have how many atoms."""
    counts: dict[str, Counter[int]] = {}
    for structure in structures:
        counts.setdefault(structure.kind, Counter())[structure.num_atoms] += 1
    return {kind: {str(n): c for n, c in sorted(counter.items())} for kind, counter in sorted(counts.items())}


def elements(structures: Sequence[Structure]) -> dict[str, dict[str, int]]:
    """How many atoms of which element the structures of each kind have, the most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for structure in structures:
        counts.setdefault(structure.kind, Counter()).update(structure.symbols)
    return {kind: dict(counter.most_common()) for kind, counter in sorted(counts.items())}


def formulas(structures: Sequence[Structure]) -> dict[str, int]:
    """How many molecules have which formula, the most frequent first."""
    return dict(Counter(s.formula for s in structures if s.kind == "molecule").most_common())


@dataclass(frozen=True)
class _Stage:
    """One of the two trainings: where it writes, on what it runs, whom it tells, how it mixes the kinds."""

    name: str
    out: Path
    device: str
    progress: Progress | None
    shares: dict[str, float]

    def trainer(self, task: Task, items: Sequence[Structure], config: TrainConfig) -> Trainer:
        sizes, kinds = [s.num_atoms for s in items], [s.kind for s in items]
        folder = self.out / self.name
        tell = self._tell(config)
        return Trainer(
            task,
            items,
            collate,
            config,
            folder,
            sizes=sizes,
            groups=kinds,
            shares=self.shares,
            device=self.device,
            on_step=tell,
        )

    def _tell(self, config: TrainConfig) -> Callable[[int, dict[str, Any]], None] | None:
        if (progress := self.progress) is None:
            return None
        return lambda step, scalars: progress(self.name, step, config.steps, scalars)


def _fit_autoencoder(items: Sequence[Structure], recipe: Recipe, stage: _Stage) -> AtomAutoencoder:
    config = recipe.autoencoder_training
    torch.manual_seed(item_seed(config.seed, "autoencoder"))
    model = build_autoencoder(recipe)
    task = AutoencoderTask(
        model,
        AutoencoderLoss(kl=recipe.kl),
        Augmentation(
            rotate=recipe.pose == "random",
            mask_types=recipe.mask_types,
            noise_positions=recipe.noise_positions,
        ),
    )
    stage.trainer(task, items, config).fit()
    set_latent_scale(model.eval(), items)
    return model


def _fit_denoiser(
    items: Sequence[Structure], autoencoder: AtomAutoencoder, recipe: Recipe, stage: _Stage
) -> LatentDiT:
    config = recipe.denoiser_training
    torch.manual_seed(item_seed(config.seed, "denoiser"))
    model = build_denoiser(recipe)
    task = DenoiserTask(
        model,
        autoencoder,
        objective(recipe),
        label_dropout=recipe.label_dropout,
        self_condition=recipe.self_condition,
        rotate=recipe.pose == "random",
        geometric_weight=recipe.geometric_loss,
        centred_prior=recipe.centred_prior,
        tell_formula={MOLECULE: recipe.tell_molecule_formula, CRYSTAL: recipe.tell_crystal_formula},
    )
    trainer = stage.trainer(task, items, config)
    autoencoder.to(trainer.accelerator.device)
    trainer.fit()
    return model.eval()


@torch.no_grad()
def set_latent_scale(autoencoder: AtomAutoencoder, items: Sequence[Structure], count: int = 2048) -> None:
    """Store mean and standard deviation of the latents of each kind: the diffusion then sees channels of equal size.

    A kind without structures keeps mean 0 and deviation 1.
    """
    channels = autoencoder.config.latent_channels
    means, deviations = [], []
    for kind in KIND_LABELS:
        latents = _latents([item for item in items if item.kind == kind], autoencoder, count)
        known = len(latents) > 1
        means.append(latents.mean(0).tolist() if known else [0.0] * channels)
        deviations.append(latents.std(0).tolist() if known else [1.0] * channels)
    autoencoder.register_to_config(
        latent_mean=[[round(v, 6) for v in row] for row in means],
        latent_std=[[round(v, 6) for v in row] for row in deviations],
    )


def _latents(
    items: Sequence[Structure], autoencoder: AtomAutoencoder, count: int
) -> Float[Tensor, "atoms c"]:
    """Sampled latents of at most `count` of the structures, all atoms in one list."""
    generator = item_generator(0, "latent-scale")
    chosen = torch.randperm(len(items), generator=generator)[:count].tolist()
    device = next(autoencoder.parameters()).device
    found = [torch.empty(0, autoencoder.config.latent_channels, device=device)]
    for start in range(0, len(chosen), 256):
        batch = collate([items[i] for i in chosen[start : start + 256]]).to(device)
        posterior = autoencoder.encode(batch)
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        found.append(posterior.sample(noise)[batch.mask])
    return torch.cat(found)
