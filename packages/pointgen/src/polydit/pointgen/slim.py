"""A trained checkpoint with fewer hidden units, so that it is small enough to ship."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from polydit.core.cli.config import apply_settings, dotted
from polydit.core.compress.hidden import pruned
from polydit.pointgen.cloud import Cloud
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
    smaller = pruned(network, hidden, clouds, collate, task.loss, batches=_BATCHES, batch_size=_BATCH)
    kept = {
        key: pipeline.config[key]
        for key in ("categories", "mean", "scale", "num_points", "num_steps", "guidance_scale")
    }
    PointPipeline(smaller, pipeline.scheduler, **kept).save_pretrained(out)
    return out


def recipe_of(run: Path) -> Recipe:
    """The recipe that a training run was made by.

    Raises:
        OSError: The folder holds no recipe.json.
        InputError: It names a setting that recipes lack, or a value of the wrong type.
    """
    return apply_settings(Recipe(), dict(dotted(json.loads((run / "recipe.json").read_text()))))
