"""Tiles put together: any window of the whole, by the centres of the tiles or by blending what overlaps.

What is kept of a tile is what its way of merging needs: its core, or all of the patch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8

from polydit.vstain.slides.grid import Box, Grid, Tile
from polydit.vstain.slides.settings import Blend

_STRIP = 1024  # columns that are blended at once


def kept_side(grid: Grid, blend: Blend) -> int:
    """Side in pixels of what is kept of a tile."""
    return grid.core if blend == "crop" else grid.patch


def kept_part(patch: UInt8[np.ndarray, "p p *c"], grid: Grid, blend: Blend) -> UInt8[np.ndarray, "s s *c"]:
    """What is kept of a patch."""
    inner = slice(grid.margin, grid.patch - grid.margin)
    return patch[inner, inner] if blend == "crop" else patch


@dataclass(frozen=True, kw_only=True)
class Mosaic:
    """An image as large as the slide, of which only windows are ever in memory.

    Args:
        grid: Of the tiles.
        blend: "crop": each place comes from the tile whose core it lies in. "feather": where patches overlap, their
            mean with weights cos² that sum to one.
        fill: Colour of where no tile was made; as many channels as the image has.
        fetch: What is kept of a tile, by its number; None = it was not made.
    """

    grid: Grid
    blend: Blend
    fill: tuple[int, ...]
    fetch: Callable[[int], UInt8[np.ndarray, "s s c"] | None]

    @property
    def width(self) -> int:
        """Columns of the whole."""
        return self.grid.width

    @property
    def height(self) -> int:
        """Rows of the whole."""
        return self.grid.height

    @property
    def channels(self) -> int:
        """1 or 3."""
        return len(self.fill)

    def window(self, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w c"]:
        """A part of the image, which lies within it."""
        if self.blend == "crop":
            return self._cropped(Box(x, y, width, height))
        # in strips, since the sums take several times the bytes of the pixels
        strips = [
            self._feathered(Box(left, y, min(_STRIP, x + width - left), height))
            for left in range(x, x + width, _STRIP)
        ]
        return np.concatenate(strips, axis=1)

    def _cropped(self, box: Box) -> UInt8[np.ndarray, "h w c"]:
        pixels = np.empty((box.height, box.width, self.channels), np.uint8)
        pixels[:] = self.fill
        for tile in self.grid.reaching(box):
            kept = self.fetch(tile.number)
            if kept is not None:
                left, top = tile.x + self.grid.margin, tile.y + self.grid.margin
                there, here = _common(box, Box(left, top, self.grid.core, self.grid.core))
                pixels[there] = kept[here]
        return pixels

    def _feathered(self, box: Box) -> UInt8[np.ndarray, "h w c"]:
        total = np.zeros((box.height, box.width, self.channels), np.float32)
        weight = np.zeros((box.height, box.width, 1), np.float32)
        weights = _weights(self.grid.patch, self.grid.margin)
        for tile in self.grid.reaching(box, reach=self.grid.margin):
            kept = self.fetch(tile.number)
            if kept is not None:
                there, here = _common(box, _patch_box(tile, self.grid))
                total[there] += weights[here] * kept[here]
                weight[there] += weights[here]
        pixels = np.empty(total.shape, np.uint8)
        pixels[:] = self.fill
        made = weight[..., 0] > 0
        pixels[made] = np.rint(total[made] / weight[made]).astype(np.uint8)
        return pixels


def _patch_box(tile: Tile, grid: Grid) -> Box:
    return Box(tile.x, tile.y, grid.patch, grid.patch)


def _common(box: Box, other: Box) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where two boxes overlap, as rows and columns of the first and of the second."""
    top, bottom = max(box.y, other.y), min(box.y + box.height, other.y + other.height)
    left, right = max(box.x, other.x), min(box.x + box.width, other.x + other.width)
    first = slice(top - box.y, bottom - box.y), slice(left - box.x, right - box.x)
    return first, (slice(top - other.y, bottom - other.y), slice(left - other.x, right - other.x))


@lru_cache(maxsize=4)
def _weights(patch: int, margin: int) -> Float32[np.ndarray, "p p 1"]:
    """1 where a patch is alone; sin² and cos², which sum to one, over the 2 * margin pixels that two share."""
    line = np.ones(patch)
    ramp = np.sin(np.pi / 2 * (np.arange(2 * margin) + 0.5) / max(2 * margin, 1)) ** 2
    line[: 2 * margin] *= ramp
    line[patch - 2 * margin :] *= ramp[::-1]
    return (line[:, None] * line[None, :])[..., None].astype(np.float32)
