"""What `polydit calibrate` samples of a checkpoint of clouds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.cli.settings import filled
from polydit.core.sampling.calibration import Setting
from polydit.pointgen.checkpoint import ALL, Checkpoint
from polydit.pointgen.cloud import Rejected
from polydit.pointgen.model import PointDiT
from polydit.pointgen.pipeline import PointPipeline, ShapeRequest
from polydit.pointgen.sampling_plan import SamplingPlan
from polydit.pointgen.solvers import SOLVERS, Solver


@dataclass(frozen=True, slots=True)
class CloudSampler:
    """Clouds of one checkpoint.

    Args:
        pipeline: Makes them.
        requests: Which.
    """

    pipeline: PointPipeline
    requests: Sequence[ShapeRequest]

    @property
    def network(self) -> PointDiT:
        """What is called in every step."""
        return self.pipeline.network

    @property
    def solvers(self) -> tuple[Solver, ...]:
        """Those without noise of their own, whose samples come nearer to one another as steps are added."""
        return tuple(name for name in SOLVERS[type(self.pipeline.scheduler).__name__] if name != "ddpm")

    @property
    def default(self) -> Setting:
        """The checkpoint's."""
        config = self.pipeline.config
        solver = self.solvers[0] if config.solver == "auto" else config.solver
        return Setting(num_steps=config.num_steps, solver=solver, cache=self.pipeline.cache)

    def __call__(self, setting: Setting) -> list[Float[Tensor, "n 3"]]:
        """Points, in the units of the data; not numbers where they are no cloud."""
        solver = cast("Solver", setting.solver)  # the pipeline refuses what is none
        found = self.pipeline(self.requests, num_steps=setting.num_steps, solver=solver, cache=setting.cache)
        return [
            torch.full((1, 3), torch.nan) if isinstance(cloud, Rejected) else torch.from_numpy(cloud.points)
            for cloud in found
        ]


def sampler(
    checkpoint: str | None, num_samples: int, request: Mapping[str, str]
) -> tuple[Checkpoint, CloudSampler]:
    """The hook of `polydit calibrate`.

    Args:
        checkpoint: As `pointgen sample --checkpoint` takes it.
        num_samples: Clouds of each run.
        request: May have `category`, `points` and `seed`, as the options of `pointgen sample`.

    Raises:
        InputError: The request has another key or a value that is none.
        CheckpointError: There is no such checkpoint.
    """
    found = Checkpoint.find(checkpoint)
    asked = filled(request, category=ALL, points=found.num_points, seed=0)
    plan = SamplingPlan(
        num_samples=num_samples, seed=asked["seed"], categories=found.chosen(asked["category"])
    )
    requests = [
        ShapeRequest(id=shape.id, category=shape.category, num_points=asked["points"], seed=shape.seed)
        for shape in plan
    ]
    return found, CloudSampler(PointPipeline.from_pretrained(found.path), requests)
