"""The call around the network of `vstain run`: what is stained, in which batches, at what cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from polydit.core.cli.sampling import Estimate, OnStep, SamplingCall, SamplingJob
from polydit.core.cli.sampling import Work as WorkFunction
from polydit.core.errors import InputError
from polydit.vstain.checkpoint import Checkpoint
from polydit.vstain.slides.inputs import PlannedInput, RunPlan
from polydit.vstain.slides.settings import Blend, PyramidFormat, StainSettings

if TYPE_CHECKING:
    from polydit.core.jobs.device import Device
    from polydit.vstain.slides.cost import TileCost, Work


@dataclass(frozen=True, kw_only=True, slots=True)
class RunCall(SamplingCall):
    """The options of `vstain run`."""

    inputs: tuple[str, ...]
    stain: str | None
    mpp: float | None
    patch: int
    margin: int
    blend: Blend
    mask: bool
    skip: bool
    format: PyramidFormat


@dataclass(frozen=True, kw_only=True)
class RunJob(SamplingJob[PlannedInput]):
    """A call with everything filled in that its checkpoint says.

    Args:
        settings: What decides the pixels.
    """

    command: ClassVar[str] = "vstain run"
    growing: ClassVar[frozenset[str]] = frozenset()

    call: RunCall
    checkpoint: Checkpoint
    plan: RunPlan
    settings: StainSettings

    @property
    def noun(self) -> str:
        """Slides and plain images."""
        return "images"

    def resolved(self) -> dict[str, Any]:
        """Options that the checkpoint or another option decided."""
        return {**super().resolved(), "stain": self.settings.stain, "mask": self.settings.mask}

    def batches(self, device: Device) -> Iterator[Sequence[PlannedInput]]:
        """A slide alone; plain images of one size together, as they follow each other."""
        from polydit.vstain.slides.run import image_size

        batch: list[PlannedInput] = []
        before: tuple[int, int] | None = None
        for item in self.plan:
            size = image_size(item.path)
            if batch and (size is None or size != before or len(batch) == self._at_once(device)):
                yield batch
                batch = []
            batch, before = [*batch, item], size
        if batch:
            yield batch

    def load(self, device: Device, on_step: OnStep) -> WorkFunction[PlannedInput]:
        """Loads the network."""
        from torch import nn

        from polydit.core.jobs.device import choose_dtype
        from polydit.vstain.slides.network import NetworkStainer
        from polydit.vstain.slides.run import StainRun

        pipeline = self.checkpoint.load()
        if self.settings.patch % pipeline.multiple:
            raise InputError(
                f"--patch {self.settings.patch} does not suit the network",
                expected=f"a multiple of {pipeline.multiple}",
            )
        # what the cache cannot serve is refused now
        pipeline.cached_denoisers(self.cache, self.num_steps, mask=self.settings.mask)
        settings = replace(self.settings, multiple=pipeline.multiple, cache=self.cache)
        nn.Module.to(pipeline.network, choose_dtype(self.call.dtype))
        stainer = NetworkStainer(
            pipeline=pipeline.to(device.name),
            stain=settings.stain,
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
            mask=settings.mask,
            cache=settings.cache,
            on_cache=self.caches.add,
        )
        return StainRun(
            stainer=stainer,
            settings=settings,
            out=self.call.out,
            batch_size=self._at_once(device),
            on_tiles=lambda done, total: on_step(done * self.num_steps, total * self.num_steps),
        )

    def write_report(self) -> None:
        """Writes the report page."""
        from polydit.vstain.report import write_report

        write_report(self.call.out)

    def estimate(self, missing: int, device: Device) -> Estimate:
        """By the count of operations."""
        at_once, tiles = self._at_once(device), self._work.tiles * missing / max(len(self.plan), 1)
        return Estimate(
            self._cost.parameters,
            self._cost.seconds(tiles, device),
            self._cost.memory_bytes(at_once),
            f"{at_once} tiles of {self.settings.patch} pixels",
        )

    def facts(self, device: Device) -> tuple[dict[str, Any], str]:
        """Slides, images and tiles."""
        work = self._work
        record = {
            "stain": self.settings.stain,
            "slides": work.slides,
            "plain_images": work.images,
            "unreadable": work.unreadable,
            "tiles": work.tiles,
            "tiles_skipped": work.skipped,
            "scratch_bytes": self._scratch_bytes,
            "tiles_per_batch": self._at_once(device),
        }
        text = f"of {self.settings.stain}: {work.tiles:,} tiles to stain"
        text += f", {work.skipped:,} without tissue" if work.skipped else ""
        text += f"; up to {self._scratch_bytes / 1e9:.1f} GB of disk meanwhile" if work.slides else ""
        text += f"; {work.unreadable} inputs cannot be read" if work.unreadable else ""
        return record, text

    @cached_property
    def _work(self) -> Work:
        from polydit.vstain.slides.cost import survey_inputs

        return survey_inputs([item.path for item in self.plan], self.settings)

    @cached_property
    def _cost(self) -> TileCost:
        from polydit.vstain.slides.cost import TileCost

        return TileCost.read(self.checkpoint.path, self.settings)

    @property
    def _scratch_bytes(self) -> int:
        """Of stain and mask of what is stained, at most."""
        side = self.settings.patch - 2 * self.settings.margin * (self.settings.blend == "crop")
        return self._work.tiles * side**2 * (4 if self.settings.mask else 3)

    def _at_once(self, device: Device) -> int:
        chosen = self.call.batch_size
        return self._cost.tiles_per_batch(device) if chosen == "auto" else chosen
