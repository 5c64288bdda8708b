"""From planned inputs to the files of a run folder: the work of `vstain run`."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, UInt8

from polydit.core.checkpoints.files import sha256_of
from polydit.core.errors import InputError
from polydit.core.jobs import ItemFailure, ItemResult, scratch_folder
from polydit.core.jobs.manifest import Output
from polydit.vstain.slides.figures import StainAmounts
from polydit.vstain.slides.finishing import figures_json, png, slide_files
from polydit.vstain.slides.grid import Grid
from polydit.vstain.slides.images import StainedImage, stain_images
from polydit.vstain.slides.inputs import PlannedInput
from polydit.vstain.slides.journal import Journal, SlidePlan
from polydit.vstain.slides.reading import Slide, open_slide
from polydit.vstain.slides.settings import VENDORS, StainSettings
from polydit.vstain.slides.staining import Stainer, stain_slide

MOST_IMAGE_PIXELS: Final = 2048 * 2048  # a larger file of one level is a slide, and so is every pyramid

_log = logging.getLogger(__name__)

Outcome = ItemResult | ItemFailure
_Pixels = UInt8[np.ndarray, "h w 3"]


def is_slide(slide: Slide) -> bool:
    """Whether a file is stained as a slide, in pieces and into a pyramid, or as a plain image."""
    width, height = slide.size
    large = len(slide.levels) > 1 or width * height > MOST_IMAGE_PIXELS
    return large or slide.path.suffix.lower() in VENDORS


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a plain image; None of a slide, and of what cannot be read."""
    try:
        with open_slide(path) as slide:
            return None if is_slide(slide) else slide.size
    except InputError:
        return None


def slide_grid(slide: Slide, settings: StainSettings) -> tuple[Grid, float]:
    """The tiles of a slide, and the microns per pixel that they are worked at.

    Raises:
        InputError: The slide's resolution is not known.
    """
    mpp = slide.working_mpp(settings.model_mpp)
    width, height = slide.size_at(mpp)
    return Grid(width=width, height=height, patch=settings.patch, margin=settings.margin), mpp


@dataclass(frozen=True, kw_only=True)
class StainRun:
    """The work function of `run_batches`: a slide, or images of one size in; files and figures out.

    Args:
        stainer: Makes the tiles.
        settings: Of the run.
        out: The run folder.
        batch_size: Tiles at once.
        on_tiles: Told (tiles done, tiles in all) of a slide.
    """

    stainer: Stainer
    settings: StainSettings
    out: Path
    batch_size: int = 1
    on_tiles: Callable[[int, int], object] = lambda done, total: None

    def __call__(self, batch: Sequence[PlannedInput]) -> list[Outcome]:
        outcomes: dict[str, Outcome] = {}
        images: dict[tuple[int, ...], list[_Read]] = defaultdict(list)
        for item in batch:
            try:
                with open_slide(item.path, mpp=self.settings.mpp) as slide:
                    if is_slide(slide):
                        outcomes[item.id] = self._slide(item, slide)
                    else:
                        read = self._read(item, slide)
                        images[read.he.shape].append(read)
            except InputError as error:
                outcomes[item.id] = _failure(item, error)
        for alike in images.values():
            for outcome in self._images(alike):
                outcomes[outcome.id] = outcome
        return [outcomes[item.id] for item in batch]

    def _slide(self, item: PlannedInput, slide: Slide) -> ItemResult:
        settings = self.settings
        grid, mpp = slide_grid(slide, settings)
        source = _source(item.path)
        plan = SlidePlan(
            slide=source["sha256"],
            model=settings.digest,
            stain=settings.stain,
            seed=item.seed,
            mpp=mpp,
            grid=grid,
            blend=settings.blend,
            num_steps=settings.num_steps,
            guidance_scale=settings.guidance_scale,
            mask=settings.mask,
            skip=settings.skip,
            precision=settings.precision,
            cache=settings.cache,
        )
        folder = scratch_folder(self.out, item.id)
        with Journal(folder, plan) as journal:
            stained = stain_slide(
                slide, self.stainer, journal, batch_size=self.batch_size, on_tiles=self.on_tiles
            )
            if not stained.wanted.any():
                _log.warning("%s: no tissue was found, so its stain is blank", item.id)
            about = self._about(item, "slide", mpp) | {"input_mpp": slide.mpp}
            scale = slide.size[0] / grid.width
            files, figures = slide_files(stained, folder, scale=scale, format=settings.format, about=about)
        measures = {**figures, "tiles_reused": stained.reused}
        return ItemResult(
            id=item.id, index=item.index, seed=item.seed, files=files, measures=measures, inputs=[source]
        )

    def _read(self, item: PlannedInput, slide: Slide) -> _Read:
        """A plain image at the network's resolution; one that does not say its own is taken to have that."""
        if slide.mpp is None:
            slide.mpp = self.settings.model_mpp
            known = "assumed"
        else:
            known = "file" if self.settings.mpp is None else "given"
        mpp = slide.working_mpp(self.settings.model_mpp)
        he = slide.read(0, 0, *slide.size_at(mpp), mpp=mpp)
        return _Read(item, he, slide.size, slide.mpp, known)

    def _images(self, reads: Sequence[_Read]) -> list[ItemResult]:
        settings = self.settings
        stained = stain_images(
            [read.he for read in reads],
            [read.item.seed for read in reads],
            self.stainer,
            patch=settings.patch,
            margin=settings.margin,
            blend=settings.blend,
            multiple=settings.multiple,
            batch_size=self.batch_size,
        )
        return [self._image(read, result) for read, result in zip(reads, stained, strict=True)]

    def _image(self, read: _Read, result: StainedImage) -> ItemResult:
        item = read.item
        about = self._about(item, "image", read.mpp) | {"mpp_source": read.known}
        texts = {name: str(value) for name, value in about.items()}
        stain, mask = _as_large(result, *read.size)
        amounts = StainAmounts()
        amounts.add(stain, mask)
        width, height = read.size
        figures = {**about, "width": width, "height": height, **amounts.to_json(masked=mask is not None)}
        files = {".png": png(stain, texts), ".json": figures_json(figures)}
        if mask is not None:
            files[".mask.png"] = png(mask.astype(np.uint8) * np.uint8(255), texts)
        return ItemResult(
            id=item.id,
            index=item.index,
            seed=item.seed,
            files=files,
            measures=figures,
            inputs=[_source(item.path)],
        )

    def _about(self, item: PlannedInput, kind: str, mpp: float) -> dict[str, Any]:
        settings = self.settings
        return {
            "kind": kind,
            "stain": settings.stain,
            "mpp": mpp,
            "seed": item.seed,
            "model": settings.model,
            "num_steps": settings.num_steps,
            "guidance_scale": settings.guidance_scale,
            "cache": settings.cache,
        }


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """An image that is ready for the network: its pixels there, its own size and resolution, and who says so."""

    item: PlannedInput
    he: _Pixels
    size: tuple[int, int]
    mpp: float
    known: str


def _as_large(
    result: StainedImage, width: int, height: int
) -> tuple[_Pixels, Bool[np.ndarray, "h w"] | None]:
    """A stain in the size of its input."""
    from PIL import Image

    if result.stain.shape[:2] == (height, width):
        return result.stain, result.mask
    stain = np.asarray(Image.fromarray(result.stain).resize((width, height), Image.Resampling.BICUBIC))
    if result.mask is None:
        return stain, None
    return stain, np.asarray(Image.fromarray(result.mask).resize((width, height), Image.Resampling.NEAREST))


def _source(path: Path) -> Output:
    return {"path": str(path), "sha256": sha256_of(path), "bytes": path.stat().st_size}


def _failure(item: PlannedInput, error: InputError) -> ItemFailure:
    return ItemFailure(id=item.id, index=item.index, seed=item.seed, error="NotStained", message=str(error))
