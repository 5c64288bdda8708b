"""A trained checkpoint with fewer hidden units, so that it is small enough to ship."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from polydit.core.compress.hidden import pruned
from polydit.core.objectives import GaussianDiffusion
from polydit.vstain.data.pair_file import PairFile
from polydit.vstain.fit import Pairs
from polydit.vstain.pipeline import StainPipeline
from polydit.vstain.recipe import Recipe
from polydit.vstain.train import Collate, StainTask

_BATCHES, _BATCH = 16, 8


def slim(checkpoint: Path, files: Sequence[PairFile], recipe: Recipe, hidden: int, out: Path) -> Path:
    """Prune the feed-forwards of a checkpoint to `hidden` units each, fitted to training pairs and noise.

    Args:
        checkpoint: Folder of the trained pipeline.
        files: Its training pairs.
        recipe: What it was trained by.
        hidden: Units that stay.
        out: Folder of the smaller pipeline.

    Returns:
        `out`.

    Raises:
        CheckpointError: `checkpoint` is no folder of the pipeline, or a file of it is damaged.
        ValueError: A feed-forward has fewer hidden units than `hidden`.
    """
    pipeline = StainPipeline.from_pretrained(checkpoint)
    network = pipeline.network
    task = StainTask(
        network,
        GaussianDiffusion.of(pipeline.scheduler, "sample"),
        pipeline.normalisation,
        crop=recipe.crop,
        he_dropout=0.0,
        mask_weight=recipe.mask_weight,
        gamma=recipe.gamma,
    )
    collate = Collate(pipeline.stains, recipe.crop)
    smaller = pruned(network, hidden, Pairs(files), collate, task.loss, batches=_BATCHES, batch_size=_BATCH)
    kept = {
        key: pipeline.config[key] for key in ("stains", "mpp", "mean", "scale", "num_steps", "guidance_scale")
    }
    StainPipeline(smaller, pipeline.scheduler, **kept).save_pretrained(out)
    return out
