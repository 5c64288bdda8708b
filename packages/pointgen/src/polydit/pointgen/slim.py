"""A trained checkpoint with fewer hidden units, so that it is small enough to ship."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch

from polydit.core.cli.config import apply_settings, dotted
from polydit.core.compress.hidden import prune_hidden
from polydit.core.jobs.seeds import item_generator
from polydit.core.nn.feed_forward import FeedForward
from polydit.pointgen.cloud import Cloud
from polydit.pointgen.model import PointDiT
from polydit.pointgen.pipeline import PointPipeline
from polydit.pointgen.recipe import Recipe
from polydit.pointgen.train import Collate, PointTask, objective_of

_BATCHES, _BATCH = 24, 16


def slim(checkpoint: Path, clouds: Sequence[Cloud], recipe: Recipe, hidden: int, out: Path) -> Path:
    """Prune the feed-forwards of a checkpoint to `hidden` units each, fitted to training clouds and noise.

    Args:
        checkpoint: Folder of the trained pipeline.
        clouds: Its training clouds.
        recipe: What it was trained by.
        hidden: Units that stay.
        out: Folder of the smaller pipeline.

    Returns:
        `out`.

    Raises:
        CheckpointError: `checkpoint` is no folder of the pipeline, or a file of it is damaged.
        ValueError: A feed-forward has fewer hidden units than `hidden`, or a cloud is of a category that the checkpoint
            lacks.
    """
    pipeline = PointPipeline.from_pretrained(checkpoint)
    network = pipeline.network
    task = PointTask(network, objective_of(recipe), recipe.num_points, recipe.label_dropout)
    collate = Collate(tuple(pipeline.config.categories), pipeline.normalisation)

    def show() -> None:
        for step in range(_BATCHES):
            generator = item_generator(0, f"slim/{step}")
            chosen = torch.randint(len(clouds), (_BATCH,), generator=generator).tolist()
            task.loss(network, collate([clouds[i] for i in chosen]), generator)

    layers = [cast(FeedForward, block.mlp) for block in network.dit.blocks]
    prune_hidden(layers, hidden, show)
    settings = {**network.config, "mlp_ratio": hidden / network.config.width}
    smaller = PointDiT(**{key: value for key, value in settings.items() if not key.startswith("_")})
    smaller.load_state_dict(network.state_dict())
    kept = {key: pipeline.config[key] for key in ("categories", "mean", "scale", "num_points", "num_steps")}
    PointPipeline(
        smaller.eval(), pipeline.scheduler, **kept, guidance_scale=pipeline.config.guidance_scale
    ).save_pretrained(out)
    return out


def recipe_of(run: Path) -> Recipe:
    """The recipe that a training run was made by.

    Raises:
        OSError: The folder holds no recipe.json.
        InputError: It names a setting that recipes lack, or a value of the wrong type.
    """
    return apply_settings(Recipe(), dict(dotted(json.loads((run / "recipe.json").read_text()))))
