"""What `polydit calibrate` samples of a checkpoint: stains of procedural tiles, or of the tiles of a data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from polydit.core.cli.settings import filled
from polydit.core.errors import InputError
from polydit.core.sampling.calibration import Setting
from polydit.vstain.checkpoint import Checkpoint
from polydit.vstain.data.find import find_pairs
from polydit.vstain.data.make import make_tile
from polydit.vstain.data.recipe import STAINS
from polydit.vstain.model import Denoiser
from polydit.vstain.pipeline import StainPipeline
from polydit.vstain.tiles import StainRequest

ALL = "all"


@dataclass(frozen=True, slots=True)
class StainSampler:
    """Stains of one checkpoint.

    Args:
        pipeline: Makes them.
        requests: Which.
    """

    pipeline: StainPipeline
    requests: Sequence[StainRequest]

    @property
    def network(self) -> Denoiser:
        """The stain's denoiser; what is cached in it, the mask's has too."""
        return self.pipeline.denoisers()[0]

    @property
    def solvers(self) -> tuple[str, ...]:
        """DDIM's steps."""
        return ("ddim",)

    @property
    def default(self) -> Setting:
        """The checkpoint's."""
        return Setting(num_steps=self.pipeline.config.num_steps, solver="ddim", cache=self.pipeline.cache)

    def __call__(self, setting: Setting) -> list[Float[Tensor, "c h w"]]:
        """The normalised stain and the mask's analog bits of each tile."""
        found = self.pipeline.generate(self.requests, num_steps=setting.num_steps, cache=setting.cache)
        return list(found.cpu())


def sampler(
    checkpoint: str | None, num_samples: int, request: Mapping[str, str]
) -> tuple[Checkpoint, StainSampler]:
    """The hook of `polydit calibrate`.

    Args:
        checkpoint: As `vstain run --checkpoint` takes it.
        num_samples: Tiles of each run.
        request: May have `stain` and `seed`, as the options of `vstain run`; or `data`, a data set whose H&E is taken
            in place of procedural tissue.

    Raises:
        InputError: The request has another key, there is no such stain, the data set has too few tiles or several
            sizes, or the checkpoint is the baseline's, which takes one step.
        CheckpointError: There is no such checkpoint.
    """
    found = Checkpoint.find(checkpoint)
    if found.is_baseline:
        raise InputError(f"{found.name} takes one step: there is nothing to choose", where="--checkpoint")
    asked = filled(request, stain=ALL, seed=0, data="")
    stains = found.stains if asked["stain"] == ALL else (found.chosen(asked["stain"]),)
    seen = _recorded(Path(asked["data"])) if asked["data"] else _procedural(asked["seed"])
    tiles = list(islice(seen, num_samples))
    if len(tiles) < num_samples:
        problem = f"{asked['data']} has {len(tiles)} tiles"
        raise InputError(problem, where="--num-samples", expected=f"{len(tiles)} or less")
    requests = [
        StainRequest.of(f"tile {number}", he, stain=stain, seed=asked["seed"])
        for number, (he, stain) in enumerate(zip(tiles, cycle(stains), strict=False))
    ]
    pipeline = StainPipeline.from_pretrained(found.path)
    pipeline.batch(requests)  # tiles that do not suit the network are refused now
    return found, StainSampler(pipeline, requests)


def _procedural(seed: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Tiles of procedural slides, without an end."""
    number = 0
    while True:
        yield make_tile(number, STAINS[number % len(STAINS)], seed=seed).he
        number += 1


def _recorded(data: Path) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The H&E of a data set."""
    for pair in find_pairs(data):
        yield pair.read().he
