"""Plain images through a network: those of one size together, and those larger than a patch tile by tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Bool, UInt8

from polydit.vstain.noise import CHANNELS, noise_field
from polydit.vstain.slides.grid import MULTIPLE, Grid
from polydit.vstain.slides.mosaic import Mosaic, kept_part
from polydit.vstain.slides.settings import Blend
from polydit.vstain.slides.staining import Stainer, stain_in_memory


@dataclass(frozen=True, slots=True, eq=False)
class StainedImage:
    """A stained image.

    Args:
        stain: sRGB.
        mask: True in positive cells; None = not made.
    """

    stain: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"] | None


def image_grid(width: int, height: int, *, patch: int, margin: int) -> Grid | None:
    """The tiles of an image; None if it fits into one patch, and is then given to the network as it is."""
    if max(width, height) <= patch:
        return None
    return Grid(width=width, height=height, patch=patch, margin=margin)


def stain_images(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    seeds: Sequence[int],
    stainer: Stainer,
    *,
    patch: int = 256,
    margin: int = 32,
    blend: Blend = "crop",
    multiple: int = MULTIPLE,
    batch_size: int = 1,
) -> list[StainedImage]:
    """Stains images of one size; beyond its edges an image goes on as its mirror image.

    Args:
        images: H&E at the network's resolution.
        seeds: Of the noise of each.
        stainer: Makes the tiles.
        patch: Largest side that the network is given.
        margin: Pixels round a tile's core, if there are several tiles.
        blend: How tiles are put together.
        multiple: Of the sides of what the network is given.
        batch_size: Tiles at once.
    """
    height, width = images[0].shape[:2]
    grid = image_grid(width, height, patch=patch, margin=margin)
    if grid is None:
        return _whole(images, seeds, stainer, multiple, batch_size)
    return [
        _tiled(image, seed, stainer, grid, blend, batch_size)
        for image, seed in zip(images, seeds, strict=True)
    ]


def _whole(
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    seeds: Sequence[int],
    stainer: Stainer,
    multiple: int,
    batch_size: int,
) -> list[StainedImage]:
    height, width = images[0].shape[:2]
    tall, wide = (-(-side // multiple) * multiple for side in (height, width))
    results = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        he = np.stack([mirrored(image, 0, 0, wide, tall) for image in images[part]])
        noise = np.stack([noise_field(seed, 0, 0, wide, tall, CHANNELS) for seed in seeds[part]])
        stain, mask = stain_in_memory(stainer, he, noise)
        for place in range(len(he)):
            bits = None if mask is None else mask[place, :height, :width]
            results.append(StainedImage(stain[place, :height, :width], bits))
    return results


def _tiled(
    image: UInt8[np.ndarray, "h w 3"], seed: int, stainer: Stainer, grid: Grid, blend: Blend, batch_size: int
) -> StainedImage:
    stains: dict[int, UInt8[np.ndarray, "s s 3"]] = {}
    masks: dict[int, UInt8[np.ndarray, "s s 1"]] = {}
    side, tiles = grid.patch, iter(grid)
    while batch := list(islice(tiles, batch_size)):
        he = np.stack([mirrored(image, tile.x, tile.y, side, side) for tile in batch])
        noise = np.stack([noise_field(seed, tile.x, tile.y, side, side, CHANNELS) for tile in batch])
        stain, mask = stain_in_memory(stainer, he, noise)
        for place, tile in enumerate(batch):
            stains[tile.number] = kept_part(stain[place], grid, blend)
            if mask is not None:
                bits = mask[place, ..., None].astype(np.uint8) * np.uint8(255)
                masks[tile.number] = kept_part(bits, grid, blend)
    whole = Mosaic(grid=grid, blend=blend, fill=(255, 255, 255), fetch=stains.get)
    pixels = whole.window(0, 0, grid.width, grid.height)
    if not masks:
        return StainedImage(pixels, None)
    cells = Mosaic(grid=grid, blend=blend, fill=(0,), fetch=masks.get)
    return StainedImage(pixels, cells.window(0, 0, grid.width, grid.height)[..., 0] > 127)


def mirrored(
    image: UInt8[np.ndarray, "h w 3"], x: int, y: int, width: int, height: int
) -> UInt8[np.ndarray, "r c 3"]:
    """A window of an image that goes on beyond its edges as its mirror image.

    Args:
        image: The image.
        x: Left edge of the window; it may be negative.
        y: Upper edge.
        width: Columns.
        height: Rows.
    """
    rows, columns = _reflected(y, height, image.shape[0]), _reflected(x, width, image.shape[1])
    return image[rows[:, None], columns[None, :]]


def _reflected(start: int, count: int, size: int) -> np.ndarray:
    """Places from `start` on, folded into 0..size-1 at the first and the last pixel."""
    period = max(2 * (size - 1), 1)
    places = np.arange(start, start + count) % period
    return np.where(places < size, places, period - places)
