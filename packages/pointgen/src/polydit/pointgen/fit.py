"""From clouds to a checkpoint folder; interrupted, it goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_seed
from polydit.core.models.convert import transfer_blocks
from polydit.core.models.dit import DiT
from polydit.core.training.trainer import Trainer
from polydit.pointgen.cloud import Cloud, Normalisation
from polydit.pointgen.model import PointDiT
from polydit.pointgen.pipeline import PointPipeline
from polydit.pointgen.recipe import NetworkSettings, Recipe
from polydit.pointgen.schedules import edm_scheduler, flow_scheduler, noise_scheduler
from polydit.pointgen.train import Collate, PointTask, objective_of

Progress = Callable[[int, int, dict[str, Any]], None]

_MEASURED = 4096  # clouds that mean and scale are taken from


def fit(
    clouds: Sequence[Cloud],
    recipe: Recipe,
    out: Path,
    *,
    start: DiT | PointPipeline | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Train a network and save a pipeline; run again after an interruption and it goes on.

    Args:
        clouds: Training clouds; each has a category.
        recipe: Sizes and settings.
        out: Run folder; the checkpoint is `out/checkpoint`.
        start: Where training starts: a checkpoint, whose categories and units stay, or a network for images whose
            blocks are taken (`transfer_blocks`); None = from scratch.
        device: "auto", or "cpu" to leave accelerators alone.
        progress: Told (step, steps, scalars).

    Returns:
        The checkpoint folder.

    Raises:
        InputError: There is no cloud, or the checkpoint to start from has another network or lacks a category.
    """
    categories = categories_of(clouds)
    normalisation = measure(clouds)
    if isinstance(start, PointPipeline):
        categories, normalisation = _known_categories(start, categories), start.normalisation
    torch.manual_seed(item_seed(recipe.training.seed, "network"))
    network = build_network(recipe.network, len(categories))
    if isinstance(start, PointPipeline):
        _take_weights(network, start.network)
    elif start is not None:
        transfer_blocks(network.dit, start)
    task = PointTask(network, objective_of(recipe), recipe.num_points, recipe.label_dropout)
    steps = recipe.training.steps
    trainer = Trainer(
        task,
        clouds,
        Collate(categories, normalisation),
        recipe.training,
        out / "training",
        device=device,
        on_step=None if progress is None else lambda step, scalars: progress(step, steps, scalars),
    )
    trainer.fit()
    pipeline = PointPipeline(
        network=network.eval(),
        scheduler=scheduler_of(recipe),
        categories=categories,
        mean=normalisation.mean,
        scale=normalisation.scale,
        num_points=recipe.num_points,
        num_steps=recipe.num_steps or (1000 if recipe.objective == "noise" else 25),
        guidance_scale=recipe.guidance_scale,
    )
    pipeline.save_pretrained(out / "checkpoint")
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    return out / "checkpoint"


def _known_categories(start: PointPipeline, found: Sequence[str]) -> tuple[str, ...]:
    """The checkpoint's, in the order of its labels."""
    known = tuple(start.config.categories)
    if unknown := [name for name in found if name not in known]:
        raise InputError(
            f"the checkpoint to start from knows no {' or '.join(unknown)}",
            expected=f"shapes of {', '.join(known)}",
            hint="Choose with --category, or train from scratch",
        )
    return known


def _take_weights(network: PointDiT, start: PointDiT) -> None:
    ours, theirs = _settings(network), _settings(start)
    if differing := [key for key in ours if ours[key] != theirs[key]]:
        have = ", ".join(f"{key} {theirs[key]}, here {ours[key]}" for key in differing)
        raise InputError(f"the checkpoint to start from has another network: {have}", where="network")
    network.load_state_dict(start.state_dict())


def _settings(network: PointDiT) -> dict[str, Any]:
    """What it was built with; a list and a tuple are the same, since a stored configuration knows lists only."""
    settings = {key: value for key, value in network.config.items() if not key.startswith("_")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def categories_of(clouds: Iterable[Cloud]) -> tuple[str, ...]:
    """Names of the categories, sorted: the order of their labels.

    Raises:
        InputError: There is no cloud.
    """
    names = tuple(sorted({cloud.category for cloud in clouds}))
    if not names:
        raise InputError("there is no cloud to train on", hint="Look with: pointgen data inspect PATH")
    return names


def measure(clouds: Sequence[Cloud]) -> Normalisation:
    """Mean and scale of the clouds; of evenly spaced ones if there are many."""
    every = max(1, len(clouds) // _MEASURED)
    return Normalisation.of(np.concatenate([cloud.points[:2048] for cloud in clouds[::every]]))


def build_network(settings: NetworkSettings, num_classes: int) -> PointDiT:
    """An untrained network."""
    return PointDiT(
        voxels=settings.voxels,
        patch_size=settings.patch_size,
        width=settings.width,
        depth=settings.depth,
        heads=settings.heads,
        mlp_ratio=settings.mlp_ratio,
        num_classes=num_classes,
        window=settings.window,
        window_blocks=settings.window_blocks,
        modulation=settings.modulation,
        extent=settings.extent,
        occupancy=settings.occupancy,
        point_channels=settings.point_channels,
    )


def scheduler_of(recipe: Recipe) -> Any:
    """The scheduler that says what the network predicts."""
    if recipe.objective == "edm":
        return edm_scheduler()
    return flow_scheduler() if recipe.objective == "flow" else noise_scheduler(recipe.schedule)
