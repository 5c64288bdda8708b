"""StainDiffuser run the plain way: the whole network in every step. It gives what the pipeline gives, to rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from polydit.core.objectives import GaussianDiffusion
from polydit.core.sampling.loop import denoise
from polydit.vstain.pictures import from_image
from polydit.vstain.pipeline import StainPipeline
from polydit.vstain.schedules import sampler


@torch.no_grad()
def plain_tiles(
    pipeline: StainPipeline,
    tiles: Sequence[UInt8[np.ndarray, "h w 3"]],
    noises: Sequence[Float32[np.ndarray, "4 h w"]],
    stain: str,
    steps: int,
) -> Float[Tensor, "b 4 h w"]:
    """Stain and analog bits, normalised.

    Args:
        pipeline: Of a network with masks.
        tiles: H&E.
        noises: What each starts from.
        stain: Name of the stain.
        steps: Of the sampler.
    """
    network, x = pipeline.network, torch.from_numpy(np.stack(noises))
    he = from_image(torch.from_numpy(np.stack(tiles)))
    numbers = torch.full((len(x),), pipeline.stains.index(stain))
    scheduler, times = sampler(pipeline.scheduler, steps)
    diffusion, remaining = GaussianDiffusion.of(scheduler), iter(times)

    def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        found = network(he, x[:, :3], x[:, 3:], next(remaining).expand(len(x)), numbers)
        return diffusion.velocity(torch.cat([found.image, found.mask], dim=1), x, timestep.expand(len(x)))

    return denoise(predict, x, scheduler)
