"""What every maker of stains takes and gives: one tile in, its stain out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_seed
from polydit.core.pipeline import Pipeline
from polydit.core.sampling.cache import Cache
from polydit.vstain.noise import CHANNELS, noise_field
from polydit.vstain.pictures import from_image


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StainRequest:
    """One tile to stain.

    Args:
        id: Its name.
        he: H&E, sRGB; sides are multiples of the network's patch.
        stain: Name of the stain.
        noise: What its sampling starts from: three channels of the stain, one of the mask.
    """

    id: str
    he: UInt8[np.ndarray, "h w 3"]
    stain: str
    noise: Float32[np.ndarray, "4 h w"]

    @classmethod
    def of(cls, id: str, he: UInt8[np.ndarray, "h w 3"], *, stain: str, seed: int = 0) -> StainRequest:
        """With the noise of `seed` and `id`, the tile being the upper left corner of its slide."""
        height, width, _ = he.shape
        noise = noise_field(item_seed(seed, id), 0, 0, width, height, CHANNELS)
        return cls(id=id, he=he, stain=stain, noise=noise)


@dataclass(frozen=True, slots=True, eq=False)
class Stained:
    """A virtual stain.

    Args:
        ihc: The stain with its counterstain, sRGB.
        mask: True in positive cells; None = not asked for, or the network has no such branch.
    """

    ihc: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"] | None


class TilePipeline(Pipeline):
    """A generator of several stains; its configuration names them and the microns per pixel."""

    @property
    def stains(self) -> tuple[str, ...]:
        """What it makes."""
        return tuple(self.config.stains)

    @property
    def mpp(self) -> float:
        """Microns per pixel of what it takes and makes."""
        return float(self.config.mpp)

    @property
    def multiple(self) -> int:
        """Pixels that the sides of a tile are multiples of."""
        raise NotImplementedError

    def cached_denoisers(
        self, cache: str | Cache | None, num_steps: int, *, mask: bool = True
    ) -> Sequence[nn.Module]:
        """In what a cache forecasts; nothing where there are no steps."""
        return ()

    def batch(self, requests: Sequence[StainRequest]) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, " b"]]:
        """The H&E of all requests in [-1, 1], and the numbers of their stains.

        Raises:
            InputError: A stain is unknown, or the sizes differ or are no multiples.
        """
        if len({request.he.shape for request in requests}) > 1:
            raise InputError("tiles of one call have one size")
        height, width, _ = requests[0].he.shape
        if height % self.multiple or width % self.multiple:
            problem = f"a tile of {width} x {height} pixels"
            raise InputError(problem, where=requests[0].id, expected=f"multiples of {self.multiple}")
        if unknown := {request.stain for request in requests} - set(self.stains):
            names = " or ".join(sorted(unknown))
            raise InputError(f"this checkpoint makes no {names}", expected=", ".join(self.stains))
        he = torch.from_numpy(np.stack([request.he for request in requests])).to(self.device)
        numbers = [self.stains.index(request.stain) for request in requests]
        return from_image(he), torch.tensor(numbers, device=self.device)
