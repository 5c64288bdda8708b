"""Requests in, clouds out: the generator that the command line and Python share.

    >>> pipe = PointPipeline.from_pretrained("path/to/checkpoint")
    >>> clouds = pipe([ShapeRequest(id="a", category="chair", num_points=2048, seed=1)])

Shapes: b clouds, n points, m known points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.pipeline import Pipeline
from polydit.core.sampling.cache import Cache, CacheReport, cached
from polydit.core.sampling.cache.named import AUTO, NONE
from polydit.core.sampling.guidance import guide
from polydit.core.sampling.loop import denoise
from polydit.core.sampling.modulation import ModulationSchedule
from polydit.pointgen.cloud import Cloud, Normalisation, Rejected, fault
from polydit.pointgen.model import PointDiT
from polydit.pointgen.schedules import STORED, NoiseSchedule, solver_of
from polydit.pointgen.solvers import Solver


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ShapeRequest:
    """One cloud to generate.

    Args:
        id: Name of the result.
        category: One of the checkpoint's.
        num_points: Points of the result.
        seed: Seed of its noise; equal seeds give equal noise in any batch.
        partial: Points that are known, in the units of the data, shape (m, 3); they come first in the result, as they
            are. None = nothing is known.
        seed_to: With `mix`, the start noise lies between those of two seeds.
        mix: 0 = `seed`, 1 = `seed_to`, between them on the sphere (Shoemake 1985).

    Raises:
        InputError: Fewer than 2 points are asked for, the known ones are no cloud or leave nothing to add, or `mix` is
            outside [0, 1].
    """

    id: str
    category: str
    num_points: int
    seed: int
    partial: Float32[np.ndarray, "m 3"] | None = None
    seed_to: int | None = None
    mix: float = 0.0

    def __post_init__(self) -> None:
        if self.num_points < 2:
            raise InputError(f"{self.num_points} points are no shape", where=self.id, expected="2 or more")
        if not 0.0 <= self.mix <= 1.0:
            raise InputError(f"mix is {self.mix}", where=self.id, expected="0 to 1")
        if self.partial is None:
            return
        if reason := fault(self.partial):
            raise InputError(reason, where=self.id)
        if len(self.partial) >= self.num_points:
            problem = f"{len(self.partial)} known points leave none of {self.num_points} to add"
            raise InputError(problem, where=self.id, hint="Ask for more points")

    def generator(self) -> torch.Generator:
        """Draws all of its noise: first that of the start, then what an ancestral sampler adds."""
        return _seeded(self.seed)

    def noise(self, generator: torch.Generator) -> Float[Tensor, "n 3"]:
        """Its start noise, of deviation 1: the first that its new `generator` draws."""
        start = torch.randn(self.num_points, 3, generator=generator)
        if self.seed_to is None or self.mix == 0.0:
            return start
        end = torch.randn(self.num_points, 3, generator=_seeded(self.seed_to))
        # independent noises of many numbers are at right angles
        angle = torch.tensor(self.mix * torch.pi / 2)
        return angle.cos() * start + angle.sin() * end


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


class PointPipeline(Pipeline):
    """DiT-3D: the network, and the scheduler that says what it predicts.

    Args:
        network: Trained network.
        scheduler: One of `schedules.STORED`.
        categories: Names in the order of their labels.
        mean: Mean of the training data, per axis.
        scale: Their deviation.
        num_points: Points of its training clouds, and of a result unless told.
        num_steps: Default number of network calls per cloud.
        guidance_scale: Default guidance scale; 1 = none.
        cache: Default cache of the network, such as "newton(every=4)".
        solver: What "auto" stands for; "auto" itself is the first that `solvers.SOLVERS` has for the scheduler.
    """

    components_by_name = {"network": PointDiT, "scheduler": STORED}  # noqa: RUF012  diffusers' folder layout

    def __init__(
        self,
        network: PointDiT,
        scheduler: Any,
        categories: Sequence[str] = (),
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        scale: float = 1.0,
        num_points: int = 2048,
        num_steps: int = 25,
        guidance_scale: float = 1.0,
        cache: str = NONE,
        solver: Solver = "auto",
    ) -> None:
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)
        self.register_to_config(
            categories=list(categories),
            mean=list(mean),
            scale=scale,
            num_points=num_points,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            cache=cache,
            solver=solver,
        )

    @property
    def normalisation(self) -> Normalisation:
        """Of the data that it was trained on."""
        x, y, z = self.config.mean
        return Normalisation((float(x), float(y), float(z)), float(self.config.scale))

    @torch.no_grad()
    def __call__(
        self,
        requests: Sequence[ShapeRequest],
        *,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        solver: Solver = "auto",
        cache: str | Cache | None = AUTO,
        on_cache: Callable[[CacheReport], object] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> list[Cloud | Rejected]:
        """Generate one cloud per request, in their order. All requests of a call have one number of points.

        Numbers that are no cloud (not finite, or all in one place) come back as `Rejected`.

        Args:
            requests: What to generate; any mixture of categories.
            num_steps: Network calls per cloud (guidance doubles each), at least 2; None = the checkpoint's default.
            guidance_scale: 1 = no guidance, 0 = without category; None = the checkpoint's default.
            solver: See `solvers.check_solver`.
            cache: Steps that are forecast: a `Cache`, or its name such as "newton(every=4)"; "auto" = the checkpoint's,
                None = none.
            on_cache: Told what the cache did.
            on_step: Told (calls done, calls in all).

        Raises:
            InputError: `num_steps` is below 2, a category is unknown, the numbers of points differ, the solver does
                not fit the checkpoint, or there is no such cache.
        """
        if not requests:
            return []
        steps = self.config.num_steps if num_steps is None else num_steps
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        if steps < 2:
            raise InputError(f"{steps} steps are too few", where="num_steps", expected="2 or more")
        if len({request.num_points for request in requests}) > 1:
            raise InputError("requests of one call have one number of points")
        scheduler = solver_of(self.scheduler, self.config.solver if solver == "auto" else solver)
        scheduler.set_timesteps(steps, device=self.device)
        schedule = NoiseSchedule.of(scheduler)
        generators = [request.generator() for request in requests]
        drawn = [r.noise(own) for r, own in zip(requests, generators, strict=True)]
        noise = torch.stack(drawn).to(self.device)
        known = _Known(requests, noise, self.normalisation, schedule)
        chosen = self.chosen_cache(cache, steps)
        with cached(self.network, chosen, schedule.clock, on_report=on_cache):
            points = denoise(
                _Guided(self.network, self._labels(requests), scale, schedule),
                known.put(schedule.start * noise, 0),
                scheduler,
                after_step=known.put if known.any else None,
                on_step=on_step,
                generator=generators,  # the ancestral sampler goes on with them; the others draw nothing
            )
        found = self.normalisation.denormalise(points.float().cpu().numpy())
        return [_cloud(request, row) for request, row in zip(requests, found, strict=True)]

    def _labels(self, requests: Sequence[ShapeRequest]) -> Tensor:
        """Label of each request's category."""
        categories = list(self.config.categories)
        if unknown := {r.category for r in requests} - set(categories):
            raise InputError(
                f"this checkpoint knows no {' or '.join(sorted(unknown))}", expected=", ".join(categories)
            )
        return torch.tensor([categories.index(r.category) for r in requests], device=self.device)


def _cloud(request: ShapeRequest, points: Float32[np.ndarray, "n 3"]) -> Cloud | Rejected:
    if request.partial is not None:
        points = np.concatenate([request.partial, points[len(request.partial) :]])
    if reason := fault(points):
        return Rejected(source=request.id, reason=reason)
    return Cloud(id=request.id, points=points, category=request.category)


class _Guided:
    """The network with categories and guidance bound: one batch per call, the modulation of all calls made before."""

    def __init__(self, network: PointDiT, labels: Tensor, scale: float, schedule: NoiseSchedule) -> None:
        null = torch.full_like(labels, network.config.num_classes)
        # scale 1 needs only the conditional half, scale 0 only the unconditional one
        self.doubled = scale not in (0.0, 1.0)
        rows = torch.cat([labels, null]) if self.doubled else (null if scale == 0.0 else labels)
        conditions, row_of_item = rows.unique(return_inverse=True)
        times = schedule.times.to(labels.device)
        self.modulation = iter(ModulationSchedule(network.modulate, times, [conditions], row_of_item))
        self.network, self.scale, self.sign = network, scale, schedule.sign

    def __call__(self, x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        found = self.network(torch.cat([x, x]) if self.doubled else x, modulation=next(self.modulation))
        if self.doubled:
            conditional, unconditional = found.chunk(2)
            found = guide(conditional, unconditional, self.scale)
        return self.sign * found


class _Known:
    """Known points, put back with the noise of the current level after every step (PVD, section 3.3)."""

    def __init__(
        self,
        requests: Sequence[ShapeRequest],
        noise: Float[Tensor, "b n 3"],
        normalisation: Normalisation,
        schedule: NoiseSchedule,
    ) -> None:
        self.points = [
            None if r.partial is None else torch.from_numpy(normalisation.normalise(r.partial)).to(noise)
            for r in requests
        ]
        self.any = any(points is not None for points in self.points)
        self.noise, self.schedule = noise, schedule

    def put(self, x: Float[Tensor, "b n 3"], index: int) -> Float[Tensor, "b n 3"]:
        """`x` with the known points as they are before call `index`; after the last one they have no noise."""
        if not self.any:
            return x
        x = x.clone()
        for row, points in enumerate(self.points):
            if points is not None:
                m = len(points)
                x[row, :m] = self.schedule.noisy(points, self.noise[row, :m], index)
        return x
