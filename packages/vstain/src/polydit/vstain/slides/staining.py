"""A whole slide through a network, tile by tile, in memory that does not depend on the slide's size.

Every tile starts from noise that belongs to its place on the slide, and is computed in a batch that depends on the plan
alone: whatever was finished before a kill, the rest comes out as it would have.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from polydit.core.jobs.memory import is_out_of_memory, release_cached_memory
from polydit.vstain.noise import CHANNELS, noise_field
from polydit.vstain.slides.background import Ground, Overview, find_ground, overview
from polydit.vstain.slides.grid import Grid, Tile
from polydit.vstain.slides.journal import Journal, SlidePlan
from polydit.vstain.slides.mosaic import Mosaic, kept_part
from polydit.vstain.slides.reading import Slide

_log = logging.getLogger(__name__)


@runtime_checkable
class Stainer(Protocol):
    """What turns H&E tiles into a stain; each tile's result depends on that tile alone."""

    def stain_tiles(
        self, he: UInt8[np.ndarray, "b h w 3"], noise: Float32[np.ndarray, "b 4 h w"]
    ) -> tuple[UInt8[np.ndarray, "b h w 3"], Bool[np.ndarray, "b h w"] | None]:
        """The stain, and the mask of positive cells unless it is not wanted.

        Args:
            he: Tiles of one size.
            noise: What each starts from.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class StainedSlide:
    """A finished slide, read from its journal while that is open.

    Args:
        plan: How it was made.
        seen: The H&E at a coarse resolution.
        ground: Its tissue.
        wanted: Whether each tile has tissue, or all are stained.
        stain: The stain.
        mask: Positive cells, 0 or 255; None = not made.
        reused: Tiles that an earlier call had finished.
    """

    plan: SlidePlan
    seen: Overview
    ground: Ground
    wanted: Bool[np.ndarray, " n"]
    stain: Mosaic
    mask: Mosaic | None
    reused: int


def survey(slide: Slide, grid: Grid, mpp: float) -> tuple[Overview, Ground, Bool[np.ndarray, " n"]]:
    """Where the tissue is, and which tiles have some; tissue is widened by one margin.

    Raises:
        InputError: The slide is damaged.
    """
    seen = overview(slide)
    ground = find_ground(seen, reach_um=max(grid.margin * mpp, 1.0))
    return seen, ground, ground.tiles(grid, mpp)


def stain_slide(
    slide: Slide,
    stainer: Stainer,
    journal: Journal,
    *,
    batch_size: int = 1,
    on_tiles: Callable[[int, int], object] = lambda done, total: None,
) -> StainedSlide:
    """Stains what is still missing of a slide.

    Args:
        slide: The slide.
        stainer: Makes the tiles.
        journal: Where they go, with the plan.
        batch_size: Tiles at once; halved when memory runs out.
        on_tiles: Told (tiles done, tiles in all) after each batch.

    Raises:
        InputError: The slide is damaged.
        OSError: The disk is full; what is finished stays.
    """
    plan = journal.plan
    seen, ground, tissue = survey(slide, plan.grid, plan.mpp)
    wanted = tissue if plan.skip else np.ones_like(tissue)
    total, done, reused = int(wanted.sum()), 0, 0
    tiles = (tile for tile in plan.grid if wanted[tile.number])
    for batch in _batches(tiles, batch_size):
        done += len(batch)
        if all(journal.done(tile.number) for tile in batch):
            reused += len(batch)
        else:
            _stain_batch(batch, slide, stainer, journal, ground.white)
        on_tiles(done, total)
    stain = Mosaic(grid=plan.grid, blend=plan.blend, fill=ground.white, fetch=journal.stain)
    mask = Mosaic(grid=plan.grid, blend=plan.blend, fill=(0,), fetch=journal.mask) if plan.mask else None
    return StainedSlide(
        plan=plan, seen=seen, ground=ground, wanted=wanted, stain=stain, mask=mask, reused=reused
    )


def _batches(tiles: Iterator[Tile], size: int) -> Iterator[Sequence[Tile]]:
    while batch := list(islice(tiles, size)):
        yield batch


def _stain_batch(
    batch: Sequence[Tile], slide: Slide, stainer: Stainer, journal: Journal, white: tuple[int, int, int]
) -> None:
    plan = journal.plan
    side = plan.grid.patch
    he = np.stack([slide.read(tile.x, tile.y, side, side, mpp=plan.mpp, outside=white) for tile in batch])
    noise = np.stack([noise_field(plan.seed, tile.x, tile.y, side, side, CHANNELS) for tile in batch])
    stain, mask = stain_in_memory(stainer, he, noise)
    kept = np.stack([kept_part(patch, plan.grid, plan.blend) for patch in stain])
    if plan.mask:
        assert mask is not None, "the stainer gives a mask if the plan has one"
        bits = np.stack(
            [kept_part(part, plan.grid, plan.blend) for part in mask.astype(np.uint8) * np.uint8(255)]
        )
        journal.add([tile.number for tile in batch], kept, bits)
    else:
        journal.add([tile.number for tile in batch], kept, None)


def stain_in_memory(
    stainer: Stainer, he: UInt8[np.ndarray, "b h w 3"], noise: Float32[np.ndarray, "b 4 h w"]
) -> tuple[UInt8[np.ndarray, "b h w 3"], Bool[np.ndarray, "b h w"] | None]:
    """A batch, in halves where memory does not suffice for all of it."""
    try:
        return stainer.stain_tiles(he, noise)
    except Exception as error:
        if len(he) == 1 or not is_out_of_memory(error):
            raise
    # Outside of the handler: while the error lives, its traceback keeps the batch's tensors in memory.
    half = len(he) // 2
    _log.warning("out of memory with %d tiles at once; going on with half as many", len(he))
    release_cached_memory()
    parts = [stain_in_memory(stainer, he[part], noise[part]) for part in (slice(half), slice(half, None))]
    masks = [mask for _, mask in parts if mask is not None]
    return np.concatenate([stain for stain, _ in parts]), np.concatenate(masks) if masks else None
