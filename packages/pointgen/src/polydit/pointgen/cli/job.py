"""What `sample`, `complete` and `interpolate` share: their options, and the call around the network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import click

from polydit.core.cli.options import CommaList, SharedOption
from polydit.core.cli.sampling import Estimate, OnStep, SamplingCall, SamplingJob, Work
from polydit.pointgen.checkpoint import Checkpoint
from polydit.pointgen.data.recipe import Scaling
from polydit.pointgen.sampling_plan import PlannedShape
from polydit.pointgen.solvers import Solver

if TYPE_CHECKING:
    from polydit.core.jobs.device import Device
    from polydit.pointgen.pipeline import PointPipeline
    from polydit.pointgen.sampling_cost import SamplingCost

FORMATS = ("ply", "glb", "obj", "xyz", "npy")
DEFAULT_FORMATS = ("ply", "glb")
MOST_POINTS = 1_000_000  # of one cloud: far beyond what a network of this kind resolves, and small in memory
_NO_STL = "An STL file holds triangles, and a cloud has none: it would be empty."

points_option = SharedOption(
    "--points", type=click.IntRange(2, MOST_POINTS), default=None, show_default="the checkpoint's",
    help="Points of every cloud.",
)  # fmt: skip
format_option = SharedOption(
    "--format", "formats", type=CommaList(FORMATS, refused={"stl": _NO_STL}), default=",".join(DEFAULT_FORMATS),
    help="File formats, separated by commas.",
)  # fmt: skip
solver_option = SharedOption(
    "--solver", type=click.Choice(get_args(Solver)), default="auto",
    help="How steps are taken; auto: the one of few steps that suits the checkpoint.",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeCall(SamplingCall):
    """The options that all three commands have."""

    points: int | None
    solver: Solver


@dataclass(frozen=True, kw_only=True)
class ShapeJob(SamplingJob[PlannedShape]):
    """A call with everything filled in that its checkpoint says.

    Args:
        num_points: Of every cloud.
        categories: What is made.
        frame: How partial clouds are brought into the units of the data.
    """

    command: ClassVar[str] = "pointgen sample"

    call: ShapeCall
    num_points: int
    categories: tuple[str, ...]
    frame: Scaling = "none"

    @property
    def noun(self) -> str:
        """Clouds."""
        return "clouds"

    def resolved(self) -> dict[str, Any]:
        """Options that the checkpoint or another option decided."""
        asked = {"points": self.num_points, "category": ",".join(self.categories), "solver": self.call.solver}
        return {**super().resolved(), **asked}

    def batches(self, device: Device) -> Iterator[Sequence[PlannedShape]]:
        """Of equal length, since all clouds of a run have the same number of points."""
        return self.plan.groups(self._per_batch(device))

    def load(self, device: Device, on_step: OnStep) -> Work[PlannedShape]:
        """Loads the network."""
        from polydit.core.sampling.cache.named import cache_for
        from polydit.pointgen.sampling_run import Sampler

        pipeline = _load(self, device)
        return Sampler(
            pipeline=pipeline,
            num_points=self.num_points,
            formats=self.formats,
            num_steps=self.num_steps,
            guidance_scale=self.guidance_scale,
            solver=self.call.solver,
            cache=cache_for(pipeline.network, self.cache, self.num_steps),
            on_cache=self.caches.add,
            frame=self.frame,
            model=self.model,
            on_step=on_step,
        )

    def write_report(self) -> None:
        """Writes the report page."""
        from polydit.pointgen.report import write_report

        write_report(self.call.out)

    def estimate(self, missing: int, device: Device) -> Estimate:
        """By the count of operations."""
        cost, at_once = self._cost(), self._per_batch(device)
        seconds, memory = cost.seconds(missing, device), cost.memory_bytes(at_once)
        return Estimate(cost.network.parameters, seconds, memory, f"{at_once} clouds")

    def facts(self, device: Device) -> tuple[dict[str, Any], str]:
        """Points and categories."""
        record = {
            "points": self.num_points,
            "categories": list(self.categories),
            "samples_per_batch": self._per_batch(device),
        }
        return record, f"of {self.num_points} points: {', '.join(self.categories) or 'any category'}"

    def _cost(self) -> SamplingCost:
        from polydit.pointgen.sampling_cost import SamplingCost

        return SamplingCost.read(
            self.checkpoint.path,
            num_points=self.num_points,
            num_steps=self.num_steps,
            guidance_scale=self.guidance_scale,
        )

    def _per_batch(self, device: Device) -> int:
        chosen = self.call.batch_size
        return self._cost().clouds_per_batch(device) if chosen == "auto" else chosen


def settled(call: ShapeCall, checkpoint: Checkpoint) -> dict[str, Any]:
    """The fields of a `ShapeJob` that every command fills in alike; finds what is wrong before a weight is loaded.

    Raises:
        InputError: The device is not there, or the checkpoint cannot be sampled by the solver.
    """
    call.check_device()
    checkpoint.check_solver(call.solver)
    return {
        "call": call,
        "checkpoint": checkpoint,
        "formats": call.formats,
        "num_points": checkpoint.num_points if call.points is None else call.points,
        "num_steps": checkpoint.num_steps if call.num_steps is None else call.num_steps,
        "guidance_scale": checkpoint.guidance_scale if call.guidance_scale is None else call.guidance_scale,
    }


def _load(job: ShapeJob, device: Device) -> PointPipeline:
    from torch import nn

    from polydit.core.jobs.device import choose_dtype
    from polydit.pointgen.pipeline import PointPipeline

    pipeline = PointPipeline.from_pretrained(job.checkpoint.path)
    # torch's own `to`, since diffusers' warns that parts of a network may have to stay in float32; the one that has to
    # here, the way to the grid and back, has no weights.
    nn.Module.to(pipeline.network, choose_dtype(job.call.dtype))
    return pipeline.to(device.name)
