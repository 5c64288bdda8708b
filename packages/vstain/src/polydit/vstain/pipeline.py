"""H&E tiles → virtual stains and masks; usable in three lines.

    >>> from polydit.vstain import StainRequest, load
    >>> pipeline = load()
    >>> stained, = pipeline([StainRequest.of("tile", he, stain="ck", seed=1)])

Shapes: b tiles, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from itertools import repeat
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler
from jaxtyping import Float, Int
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.nn.modulation import ModulationTable
from polydit.core.objectives import GaussianDiffusion
from polydit.core.sampling.cache import Cache, CacheReport, RoutedModules, cached
from polydit.core.sampling.cache.named import AUTO, NONE, cache_for
from polydit.core.sampling.guidance.classifier_free import guide
from polydit.core.sampling.loop import denoise
from polydit.core.sampling.modulation import ModulationSchedule
from polydit.vstain.model import Denoiser, StainDiT, Tissue
from polydit.vstain.noise import IMAGE_CHANNELS
from polydit.vstain.pictures import Normalisation, to_image
from polydit.vstain.schedules import clock_of, sampler
from polydit.vstain.tiles import Stained, StainRequest, TilePipeline


class StainPipeline(TilePipeline):
    """H&E tiles to virtual stains.

    Args:
        network: Predicts the clean stain and mask.
        scheduler: The noise schedule and the steps.
        stains: Names in the order of their numbers.
        mpp: Microns per pixel of its training tiles.
        mean: Of the stain, see `Normalisation`.
        scale: Likewise.
        num_steps: Default number of network calls per tile.
        guidance_scale: Default guidance scale; 1 = none.
        cache: Default cache of the denoisers, such as "newton(every=4)".
    """

    components_by_name = {"network": StainDiT, "scheduler": DDIMScheduler}  # noqa: RUF012  diffusers' folder layout

    def __init__(
        self,
        network: StainDiT,
        scheduler: Any,
        stains: Sequence[str] = (),
        mpp: float = 0.5,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        scale: float = 1.0,
        num_steps: int = 10,
        guidance_scale: float = 1.0,
        cache: str = NONE,
    ) -> None:
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)
        self.register_to_config(
            stains=list(stains),
            mpp=mpp,
            mean=list(mean),
            scale=scale,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            cache=cache,
        )

    @property
    def multiple(self) -> int:
        """Pixels that the sides of a tile are multiples of."""
        return int(self.network.config.patch_size)

    @property
    def has_mask(self) -> bool:
        """Whether it also makes masks."""
        return self.network.mask is not None

    def denoisers(self, *, mask: bool = True) -> list[Denoiser]:
        """What is called in every step: the stain's denoiser, and with `mask` that of the mask if there is one."""
        branches = (self.network.image, self.network.mask if mask else None)
        return [branch for branch in branches if branch is not None]

    def cached_denoisers(
        self, cache: str | Cache | None, num_steps: int, *, mask: bool = True
    ) -> list[Denoiser]:
        """Those in which a cache forecasts: all, but for a table of routes, which is of one network, the stain's.

        Args:
            cache: As a call takes it, but for "auto".
            num_steps: Of each run.
            mask: Whether the mask is made.

        Raises:
            InputError: There is no such cache, or it cannot serve them.
        """
        built = cache_for(self.network.image, cache, num_steps)
        if built is None:
            return []
        first, *others = self.denoisers(mask=mask and not isinstance(built.site, RoutedModules))
        for other in others:
            cache_for(other, cache, num_steps)
        return [first, *others]

    @property
    def normalisation(self) -> Normalisation:
        """Of the stain."""
        red, green, blue = self.config.mean
        return Normalisation((float(red), float(green), float(blue)), float(self.config.scale))

    @torch.no_grad()
    def __call__(
        self,
        requests: Sequence[StainRequest],
        *,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        mask: bool = True,
        cache: str | Cache | None = AUTO,
        on_cache: Callable[[CacheReport], object] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[Stained]:
        """Stain one tile per request, in their order. All requests of a call have one size.

        Args:
            requests: What to stain; any mixture of stains.
            num_steps: Network calls per tile (guidance doubles each); None = the checkpoint's default.
            guidance_scale: 1 = no guidance, 0 = without the H&E; None = the checkpoint's default.
            mask: Whether to make the mask as well; without it the work is a third less.
            cache: Steps that are forecast, in each denoiser: a `Cache`, or its name such as "newton(every=4)"; "auto" =
                the checkpoint's, None = none.
            on_cache: Told what the cache did in the stain's denoiser.
            on_step: Told (calls done, calls in all).

        Raises:
            InputError: A stain is unknown, the sizes differ or are no multiple of the patch, there is no step, or no
                such cache.
        """
        if not requests:
            return []
        found = self.generate(
            requests,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            mask=mask,
            cache=cache,
            on_cache=on_cache,
            on_step=on_step,
        )
        images = to_image(self.normalisation.denormalise(found[:, :IMAGE_CHANNELS])).cpu().numpy()
        bits = found[:, IMAGE_CHANNELS:]
        masks = (bits[:, 0] > 0).cpu().numpy() if bits.shape[1] else [None] * len(requests)
        return [Stained(image, positive) for image, positive in zip(images, masks, strict=True)]

    @torch.no_grad()
    def generate(
        self,
        requests: Sequence[StainRequest],
        *,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        mask: bool = True,
        cache: str | Cache | None = AUTO,
        on_cache: Callable[[CacheReport], object] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """What the network makes, before it is a picture: the normalised stain, then the mask's analog bits if wanted.

        Arguments and errors are those of a call; there is one request at least.
        """
        steps = self.config.num_steps if num_steps is None else num_steps
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        most = self.scheduler.config.num_train_timesteps
        if not 1 <= steps <= most:
            raise InputError(f"{steps} steps are out of range", where="num_steps", expected=f"1..{most}")
        scheduler, times = sampler(self.scheduler, steps)
        wanted = mask and self.has_mask
        he, stains = self.batch(requests)
        noise = torch.from_numpy(np.stack([request.noise for request in requests])).to(self.device)
        chosen = self.chosen_cache(cache, steps)
        predict = _Guided(
            self.network,
            he,
            stains,
            GaussianDiffusion.of(scheduler),
            times.to(self.device),
            scale,
            wanted,
        )
        with ExitStack() as runs:
            branches = self.cached_denoisers(chosen, steps, mask=wanted)
            for branch, report in zip(branches, (on_cache, None), strict=False):
                runs.enter_context(cached(branch, chosen, clock_of(scheduler), on_report=report))
            return denoise(
                predict, noise if wanted else noise[:, :IMAGE_CHANNELS], scheduler, on_step=on_step
            )


class _Guided:
    """The network with its tiles bound: the H&E is encoded once, and so is the modulation of every step and stain."""

    def __init__(
        self,
        network: StainDiT,
        he: Float[Tensor, "b 3 h w"],
        stains: Int[Tensor, " b"],
        diffusion: GaussianDiffusion,
        times: Int[Tensor, " s"],
        scale: float,
        mask: bool,
    ) -> None:
        # scale 1 needs only the conditional half, scale 0 only the unconditional one
        self.doubled = scale not in (0.0, 1.0)
        copies = 2 if self.doubled else 1
        self.network, self.diffusion, self.scale, self.mask = network, diffusion, scale, mask
        self.tissue = self._encode(he, scale)
        labels, rows = stains.repeat(copies).unique(return_inverse=True)
        branches = (network.image, network.mask if mask else None)
        self.tables = zip(*(_tables(branch, times, labels, rows) for branch in branches), strict=False)

    def _encode(self, he: Float[Tensor, "b 3 h w"], scale: float) -> Tissue:
        if self.doubled:
            dropped = torch.cat([torch.zeros(len(he)), torch.ones(len(he))]).to(he.device)
            return self.network.encode(torch.cat([he, he]), dropped, mask=self.mask)
        hidden = torch.ones(len(he), device=he.device) if scale == 0.0 else None
        return self.network.encode(he, hidden, mask=self.mask)

    def __call__(
        self, x: Float[Tensor, "b c h w"], timestep: Tensor, previous: Tensor | None
    ) -> Float[Tensor, "b c h w"]:
        noisy = torch.cat([x, x]) if self.doubled else x
        bits = noisy[:, IMAGE_CHANNELS:] if self.mask else None
        found = self.network.denoise(noisy[:, :IMAGE_CHANNELS], bits, next(self.tables), self.tissue)
        clean = found.image if found.mask is None else torch.cat([found.image, found.mask], dim=1)
        if self.doubled:
            conditional, unconditional = clean.chunk(2)
            clean = guide(conditional, unconditional, self.scale)
        return self.diffusion.velocity(clean, x, timestep.expand(len(x)))


def _tables(
    branch: Denoiser | None, times: Int[Tensor, " s"], stains: Int[Tensor, " u"], rows: Int[Tensor, " b"]
) -> Iterable[ModulationTable | None]:
    """The modulation of a branch at each step; None for ever where there is no branch."""
    return repeat(None) if branch is None else ModulationSchedule(branch.modulate, times, [stains], rows)
