"""H&E in, stain out in one pass of pix2pix: called as `StainPipeline` is.

>>> pipe = GanPipeline.from_pretrained("path/to/checkpoint")
>>> [stained] = pipe([StainRequest(id="a", he=image, stain="ck", noise=noise)])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.pipeline import Pipeline
from polydit.vstain.baseline.networks import UNetGenerator
from polydit.vstain.pictures import from_image, to_image
from polydit.vstain.pipeline import Stained, StainRequest


class GanPipeline(Pipeline):
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
    def stains(self) -> tuple[str, ...]:
        """What it makes."""
        return tuple(self.config.stains)

    @property
    def mpp(self) -> float:
        """Microns per pixel that it knows."""
        return float(self.config.mpp)

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
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[Stained]:
        """Stain one tile per request, in their order. All tiles of a call have one size, a multiple of `multiple`.

        Args:
            requests: What to stain; any mixture of stains. Their noise is not read.
            num_steps: Without effect: there is one pass.
            guidance_scale: Without effect.
            mask: Without effect: the network makes no mask, and `Stained.mask` is None.
            on_step: Told (1, 1) after the pass.

        Raises:
            InputError: A stain is unknown, or the sizes differ or are no multiple.
        """
        if not requests:
            return []
        self._check_sizes(requests)
        tiles = torch.from_numpy(np.stack([request.he for request in requests])).to(self.device)
        made = self.network(from_image(tiles), self._labels(requests))
        if on_step is not None:
            on_step(1, 1)
        return [Stained(ihc=image, mask=None) for image in to_image(made).cpu().numpy()]

    def _check_sizes(self, requests: Sequence[StainRequest]) -> None:
        sizes = {request.he.shape[:2] for request in requests}
        if len(sizes) > 1:
            raise InputError("tiles of one call have one size")
        height, width = sizes.pop()
        if height % self.multiple or width % self.multiple:
            problem = f"a tile of {width} x {height} pixels"
            raise InputError(problem, where=requests[0].id, expected=f"multiples of {self.multiple}")

    def _labels(self, requests: Sequence[StainRequest]) -> Int[Tensor, " b"]:
        if unknown := {request.stain for request in requests} - set(self.stains):
            problem = f"this checkpoint makes no {' or '.join(sorted(unknown))}"
            raise InputError(problem, expected=", ".join(self.stains))
        return torch.tensor([self.stains.index(request.stain) for request in requests], device=self.device)
