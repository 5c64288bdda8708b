"""A pipeline as what stains the tiles of a slide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from polydit.core.sampling.cache import Cache, CacheReport
from polydit.vstain.tiles import StainRequest

if TYPE_CHECKING:
    from polydit.vstain.baseline.pipeline import GanPipeline
    from polydit.vstain.pipeline import StainPipeline


@dataclass(frozen=True, kw_only=True)
class NetworkStainer:
    """A `Stainer` that calls a pipeline.

    Args:
        pipeline: Makes the tiles.
        stain: Which stain.
        num_steps: Of the sampler.
        guidance_scale: Of the sampler.
        mask: Whether to make masks.
        cache: Steps that are forecast; see `StainPipeline`.
        on_cache: Told what the cache did, after each batch.
    """

    pipeline: StainPipeline | GanPipeline
    stain: str
    num_steps: int
    guidance_scale: float
    mask: bool
    cache: str | Cache | None = None
    on_cache: Callable[[CacheReport], object] | None = None

    def stain_tiles(
        self, he: UInt8[np.ndarray, "b h w 3"], noise: Float32[np.ndarray, "b 4 h w"]
    ) -> tuple[UInt8[np.ndarray, "b h w 3"], Bool[np.ndarray, "b h w"] | None]:
        """One call of the pipeline."""
        requests = [
            StainRequest(id=f"tile {place}", he=tile, stain=self.stain, noise=noise[place])
            for place, tile in enumerate(he)
        ]
        made = self.pipeline(
            requests,
            num_steps=self.num_steps,
            guidance_scale=self.guidance_scale,
            mask=self.mask,
            cache=self.cache,
            on_cache=self.on_cache,
        )
        masks = [stained.mask for stained in made if stained.mask is not None]
        return np.stack([stained.ihc for stained in made]), np.stack(masks) if masks else None
