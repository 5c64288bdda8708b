"""What a tile's neighbours, batch and place change of its stain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from polydit.bench.rows import Row
from polydit.bench.stain_plain import plain_tiles
from polydit.vstain import load
from polydit.vstain.data.tissue import render
from polydit.vstain.noise import CHANNELS, noise_field
from polydit.vstain.pipeline import StainPipeline
from polydit.vstain.slides.grid import Grid
from polydit.vstain.tiles import StainRequest

SEED, STAIN = 11, "ck"
PATCH, MARGIN = 256, 32
CORE = PATCH - 2 * MARGIN


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A patch of the procedural slide with the noise that belongs there.

    Args:
        he: Its H&E.
        noise: Its noise.
    """

    he: UInt8[np.ndarray, "p p 3"]
    noise: Float32[np.ndarray, "4 p p"]

    @classmethod
    def at(cls, x: int, y: int, side: int = PATCH) -> Place:
        """With the upper left corner (x, y)."""
        return cls(render(SEED, x, y, side, side, STAIN).he, noise_field(SEED, x, y, side, side, CHANNELS))


def place_rows(*, quick: bool, checkpoint: str | None = None) -> Iterator[Row]:
    """Overlap of neighbours, batch of 1 against 8, and the grid moved by half a core."""
    pipeline = load(checkpoint)
    count, steps = (2, 2) if quick else (8, int(pipeline.config.num_steps))
    yield _overlap(pipeline, count, steps)
    yield _batch(pipeline, steps)
    yield _shift(pipeline, 1 if quick else 2, steps)


def _overlap(pipeline: StainPipeline, count: int, steps: int) -> Row:
    xs = range(0, 4 * PATCH * count, 4 * PATCH)
    shared, own = (
        float(np.mean([_disagreement(pipeline, x, steps, shared=shared) for x in xs]))
        for shared in (True, False)
    )
    return Row(
        key="stain overlap",
        what="Two tiles where they overlap: their difference with the noise of the place over noise of their own",
        value=shared / own,
        unit="×",
        asked=0.3,
        aim=0.2,
        how=f"{count} pairs of {PATCH}² tiles, overlap {2 * MARGIN} px, {steps} steps, fp32, mean absolute difference "
        f"of the virtual {STAIN}: {shared:.3f} against {own:.3f} grey levels",
    )


def _disagreement(pipeline: StainPipeline, x: int, steps: int, *, shared: bool) -> float:
    """In grey levels, of the tile at x and the one a core to its right."""
    left, right = Place.at(x, 0), Place.at(x + CORE, 0)
    if not shared:
        right = Place(right.he, Place.at(x, 10**6).noise)
    first, second = _stained(pipeline, [left, right], steps)
    return float(np.abs(first[:, CORE:].astype(float) - second[:, : 2 * MARGIN]).mean())


def _batch(pipeline: StainPipeline, steps: int) -> Row:
    """Of the numbers before they are rounded to bytes."""
    places = [Place.at(x, 0, 128) for x in range(0, 8 * PATCH, PATCH)]
    tiles, noises = [place.he for place in places], [place.noise for place in places]
    together = plain_tiles(pipeline, tiles, noises, STAIN, steps)
    alone = [
        plain_tiles(pipeline, [he], [noise], STAIN, steps) for he, noise in zip(tiles, noises, strict=True)
    ]
    return Row(
        key="stain batch",
        what="A tile in a batch of 8 against the same tile alone: largest difference",
        value=float((together - torch.cat(alone)).abs().max()),
        unit="deviations",
        asked=1e-4,
        how=f"8 tiles of 128², {steps} steps, fp32, stain and analog bits before they become pictures",
    )


def _shift(pipeline: StainPipeline, count: int, steps: int) -> Row:
    """The same square of the slide from tiles whose borders lie elsewhere."""
    differences = []
    for x in range(0, 4 * PATCH * count, 4 * PATCH):
        plain, moved = (_joined(pipeline, x, shift, steps) for shift in (0, CORE // 2))
        differences.append(np.abs(plain.astype(float) - moved))
    found = np.stack(differences)
    return Row(
        key="stain shift",
        what="The grid of tiles moved by half a core: mean difference of the stain",
        value=float(found.mean()),
        unit="grey levels",
        how=f"{count} squares of {2 * CORE}², margin {MARGIN}, {steps} steps, fp32; 99th percentile "
        f"{np.percentile(found, 99):.3g}, largest {found.max():.3g}",
    )


def _joined(pipeline: StainPipeline, x: int, shift: int, steps: int) -> UInt8[np.ndarray, "h w 3"]:
    """Two by two cores of the unmoved grid, from x on."""
    grid = Grid(width=2 * CORE, height=2 * CORE, patch=PATCH, margin=MARGIN, shift=shift)
    image = np.zeros((grid.height, grid.width, 3), np.uint8)
    for tile in grid:
        (stain,) = _stained(pipeline, [Place.at(x + tile.x, tile.y)], steps)
        core, top, left = tile.core, tile.core.y - tile.y, tile.core.x - tile.x
        image[core.y : core.y + core.height, core.x : core.x + core.width] = stain[
            top : top + core.height, left : left + core.width
        ]
    return image


def _stained(
    pipeline: StainPipeline, places: Sequence[Place], steps: int
) -> list[UInt8[np.ndarray, "p p 3"]]:
    requests = [
        StainRequest(id=str(number), he=place.he, stain=STAIN, noise=place.noise)
        for number, place in enumerate(places)
    ]
    return [stained.ihc for stained in pipeline(requests, num_steps=steps, mask=False, cache=None)]
