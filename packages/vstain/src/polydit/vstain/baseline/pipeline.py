"""H&E in, stain out in one pass of pix2pix: called as `StainPipeline` is.

>>> pipe = GanPipeline.from_pretrained("path/to/checkpoint")
>>> [stained] = pipe([StainRequest(id="a", he=image, stain="ck", noise=noise)])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from polydit.core.sampling.cache import Cache, CacheReport
from polydit.vstain.baseline.networks import UNetGenerator
from polydit.vstain.pictures import to_image
from polydit.vstain.tiles import Stained, StainRequest, TilePipeline


class GanPipeline(TilePipeline):
    """The generator of pix2pix and the names of its stains.

    Args:
        network: Trained generator.
        stains: Names in the order of their labels.
        mpp: Microns per pixel of its training images.
        num_steps: Always 1: what a plan of a run reads.
        guidance_scale: Always 1: there is no guidance.
    """

    components_by_name = {"network": UNetGenerator}  # noqa: RUF012  diffusers' folder layout

    def __init__(
        self,
        network: UNetGenerator,
        stains: Sequence[str] = (),
        mpp: float = 0.5,
        num_steps: int = 1,
        guidance_scale: float = 1.0,
    ) -> None:
        super().__init__()
        # a quarter faster on a CPU with bf16, and the same numbers to rounding
        self.register_modules(network=network.to(memory_format=torch.channels_last))
        self.register_to_config(
            stains=list(stains), mpp=mpp, num_steps=num_steps, guidance_scale=guidance_scale
        )

    @property
    def multiple(self) -> int:
        """Pixels that the sides of a tile are a multiple of."""
        return self.network.multiple

    @torch.no_grad()
    def __call__(
        self,
        requests: Sequence[StainRequest],
        *,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        mask: bool = True,
        cache: str | Cache | None = None,
        on_cache: Callable[[CacheReport], object] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[Stained]:
        """Stain one tile per request, in their order. All tiles of a call have one size, a multiple of `multiple`.

        Args:
            requests: What to stain; any mixture of stains. Their noise is not read.
            num_steps: Without effect: there is one pass.
            guidance_scale: Without effect.
            mask: Without effect: the network makes no mask, and `Stained.mask` is None.
            cache: Without effect.
            on_cache: Never told anything.
            on_step: Told (1, 1) after the pass.

        Raises:
            InputError: A stain is unknown, or the sizes differ or are no multiple.
        """
        if not requests:
            return []
        made = self.network(*self.batch(requests))
        if on_step is not None:
            on_step(1, 1)
        return [Stained(ihc=image, mask=None) for image in to_image(made).cpu().numpy()]
