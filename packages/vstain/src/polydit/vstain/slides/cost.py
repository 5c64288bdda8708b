"""What a run costs, from the checkpoint's config files alone: for `--dry-run` and `--batch-size auto`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polydit.core.errors import CheckpointError, InputError, MissingExtraError
from polydit.core.jobs.cost import (
    NetworkCost,
    computing_seconds,
    memory_bytes,
    read_config,
    tokens_per_batch,
)
from polydit.vstain.slides.images import image_grid
from polydit.vstain.slides.reading import open_slide
from polydit.vstain.slides.run import is_slide, slide_grid
from polydit.vstain.slides.settings import StainSettings
from polydit.vstain.slides.staining import survey

if TYPE_CHECKING:
    from polydit.core.jobs.device import Device

_CROSS = 1.5  # a block that also attends to the H&E over one that does not
_BASELINE_PATCH = 8  # pixels: the baseline's weights are used about once per square of this side


@dataclass(frozen=True, slots=True)
class TileCost:
    """Cost of one patch.

    Args:
        parameters: Of the network.
        tokens: Of a patch.
        bytes_per_token: Memory that grows with the batch.
        operations: Floating-point operations from start to end.
    """

    parameters: int
    tokens: int
    bytes_per_token: int
    operations: float

    @classmethod
    def read(cls, checkpoint: Path, settings: StainSettings) -> TileCost:
        """From a checkpoint folder.

        Raises:
            CheckpointError: A config or weight file is missing or damaged.
        """
        from polydit.core.checkpoints.folder import component_sizes

        folder = checkpoint / "network"
        config, parameters = read_config(folder), component_sizes(checkpoint).get("network", 0)
        if "encoder_depth" not in config:
            return cls._baseline(parameters, settings.patch)
        try:
            patch, width, radius = (int(config[name]) for name in ("patch_size", "width", "radius"))
            depths = [int(config[name]) for name in ("encoder_depth", "image_depth", "mask_depth")]
            ratio = float(config["mlp_ratio"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError("its config.json is damaged", where=str(folder)) from error
        tokens, attended = (settings.patch // patch) ** 2, math.pi * radius**2
        encoder = NetworkCost(width, depths[0], ratio, parameters)
        denoisers = NetworkCost(width, depths[1] + depths[2] * settings.mask, ratio, parameters)
        passes = settings.num_steps * (1 if settings.guidance_scale in (0.0, 1.0) else 2)
        operations = encoder.operations(tokens, attended)
        operations += _CROSS * passes * denoisers.operations(tokens, attended)
        return cls(parameters, tokens, encoder.bytes_per_token, operations)

    @classmethod
    def _baseline(cls, parameters: int, patch: int) -> TileCost:
        tokens = (patch // _BASELINE_PATCH) ** 2
        return cls(parameters, tokens, 4 * _BASELINE_PATCH**2 * 64, 2.0 * parameters * tokens)

    def seconds(self, tiles: int | float, device: Device) -> float:
        """Computing time; loading the network comes on top."""
        return computing_seconds(tiles * self.operations, device)

    def memory_bytes(self, tiles: int) -> float:
        """Peak memory of the process with so many tiles at once."""
        return memory_bytes(self.parameters, tiles * self.tokens, self.bytes_per_token)

    def tiles_per_batch(self, device: Device) -> int:
        """Tiles that keep the device busy and fit into half of its free memory."""
        return max(1, tokens_per_batch(self.bytes_per_token, device) // self.tokens)


@dataclass(slots=True)
class Work:
    """What there is to do.

    Args:
        slides: Of the inputs.
        images: Of the inputs, plain ones.
        unreadable: Of the inputs.
        tiles: To stain.
        skipped: Tiles without tissue.
        pixels: Of all slides, at the resolution that is worked at.
    """

    slides: int = 0
    images: int = 0
    unreadable: int = 0
    tiles: int = 0
    skipped: int = 0
    pixels: int = 0


def survey_inputs(inputs: Sequence[Path], settings: StainSettings) -> Work:
    """Counts tiles; of slides by their tissue, which reads an overview of each."""
    work = Work()
    for path in inputs:
        try:
            _add(work, path, settings)
        except (InputError, MissingExtraError):
            work.unreadable += 1
    return work


def _add(work: Work, path: Path, settings: StainSettings) -> None:
    with open_slide(path, mpp=settings.mpp) as slide:
        if not is_slide(slide):
            slide.mpp = slide.mpp or settings.model_mpp
            mpp = slide.working_mpp(settings.model_mpp)
            grid = image_grid(*slide.size_at(mpp), patch=settings.patch, margin=settings.margin)
            work.images += 1
            work.tiles += len(grid) if grid else 1
            return
        whole, mpp = slide_grid(slide, settings)
        wanted = int(survey(slide, whole, mpp)[2].sum()) if settings.skip else len(whole)
        work.slides += 1
        work.tiles += wanted
        work.skipped += len(whole) - wanted
        work.pixels += whole.width * whole.height
