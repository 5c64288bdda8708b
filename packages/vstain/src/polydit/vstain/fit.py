"""From pairs to a checkpoint folder; interrupted, it goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_seed
from polydit.core.objectives import GaussianDiffusion
from polydit.core.training.trainer import Trainer
from polydit.vstain.data.pair_file import PairFile
from polydit.vstain.model import StainDiT
from polydit.vstain.pairs import StainPair
from polydit.vstain.pictures import Normalisation
from polydit.vstain.pipeline import StainPipeline
from polydit.vstain.recipe import NetworkSettings, Recipe
from polydit.vstain.schedules import stain_scheduler
from polydit.vstain.train import Collate, StainTask

Progress = Callable[[int, int, dict[str, Any]], None]

_MEASURED = 64  # pairs that mean and scale are taken from
_KEPT_BYTES = 2 * 2**30  # of decoded tiles that stay in memory


class Pairs(Sequence[StainPair]):
    """Pairs that are read when they are needed, and kept while there is room.

    Args:
        files: Where they are.
    """

    def __init__(self, files: Sequence[PairFile]) -> None:
        self.files, self._room = files, _KEPT_BYTES
        self._kept: dict[int, StainPair] = {}

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Any:
        if index in self._kept:
            return self._kept[index]
        pair = self.files[index].read()
        size = pair.he.nbytes + pair.ihc.nbytes + (0 if pair.mask is None else pair.mask.nbytes)
        if size <= self._room:
            self._kept[index], self._room = pair, self._room - size
        return pair


def fit(
    files: Sequence[PairFile],
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Train a network and save a pipeline; run again after an interruption and it goes on.

    Args:
        files: Training pairs; each names its stain.
        recipe: Sizes and settings.
        out: Run folder; the checkpoint is `out/checkpoint`.
        device: "auto", or "cpu" to leave accelerators alone.
        progress: Told (step, steps, scalars).

    Returns:
        The checkpoint folder.

    Raises:
        InputError: There is no pair, a pair names no stain, or the microns per pixel are not known or differ.
    """
    used, stains, mpp = shared(files, recipe.share), stains_of(files), mpp_of(files, recipe.mpp)
    pairs = Pairs(used)
    normalisation = Normalisation.of([pair.ihc for pair in pairs_measured(pairs)])
    torch.manual_seed(item_seed(recipe.training.seed, "network"))
    network = build_network(recipe.network, len(stains))
    scheduler = stain_scheduler()
    task = StainTask(
        network,
        GaussianDiffusion.of(scheduler, "sample"),
        normalisation,
        crop=recipe.crop,
        he_dropout=recipe.he_dropout,
        mask_weight=recipe.mask_weight,
        gamma=recipe.gamma,
    )
    steps = recipe.training.steps
    trainer = Trainer(
        task,
        pairs,
        Collate(stains, recipe.crop),
        recipe.training,
        out / "training",
        device=device,
        on_step=None if progress is None else lambda step, scalars: progress(step, steps, scalars),
    )
    trainer.fit()
    pipeline = StainPipeline(
        network=network.eval(),
        scheduler=scheduler,
        stains=stains,
        mpp=mpp,
        mean=normalisation.mean,
        scale=normalisation.scale,
        num_steps=recipe.num_steps,
        guidance_scale=recipe.guidance_scale,
    )
    pipeline.save_pretrained(out / "checkpoint")
    (out / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    return out / "checkpoint"


def build_network(settings: NetworkSettings, num_stains: int) -> StainDiT:
    """An untrained network."""
    return StainDiT(**asdict(settings), num_stains=num_stains)


def stains_of(files: Sequence[PairFile]) -> tuple[str, ...]:
    """Names of the stains, sorted: the order of their numbers.

    Raises:
        InputError: There is no pair, or one names no stain.
    """
    if not files:
        raise InputError("there is no pair to train on", hint="Look with: vstain data inspect PATH")
    if nameless := next((file for file in files if not file.stain), None):
        raise InputError(
            "the stain is not known", where=str(nameless.ihc), hint="Name it: --stain her2, for all pairs"
        )
    return tuple(sorted({file.stain for file in files}))


def shared(files: Sequence[PairFile], share: float) -> list[PairFile]:
    """The first part of the pairs of each stain, at least one of each."""
    chosen: list[PairFile] = []
    for stain in stains_of(files):
        own = [file for file in files if file.stain == stain]
        chosen += own[: max(1, round(share * len(own)))]
    return chosen


def mpp_of(files: Sequence[PairFile], told: float) -> float:
    """Microns per pixel of all pairs.

    Raises:
        InputError: The pairs do not agree, or do not say, and nothing was told.
    """
    if told:
        return told
    found = sorted({file.mpp for file in files if file.mpp is not None})
    if len(found) != 1:
        many = " and ".join(f"{mpp:g}" for mpp in found[:3])
        raise InputError(
            f"the pairs have {many} microns per pixel" if found else "the pairs name no microns per pixel",
            hint="Bring them to one: vstain data import PATH --mpp 0.5; or say it: --set mpp=0.5",
        )
    return found[0]


def pairs_measured(pairs: Pairs) -> list[StainPair]:
    """Evenly spaced pairs, for mean and scale."""
    every = max(1, len(pairs) // _MEASURED)
    return [pairs[index] for index in range(0, len(pairs), every)]
