"""Where a slide has tissue, from an overview that is put together piece by piece."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from polydit.vstain.slides.grid import Box, Grid
from polydit.vstain.slides.reading import Slide

OVERVIEW_PIXELS: Final = 1024  # of the longer side, unless that is coarser than the tissue mask needs
MASK_MPP: Final = (8.0, 16.0)  # microns per pixel at which tissue is told from glass
_PIECE = 1024  # pixels of a side, of the slide's own, that are read at once where it has one level only

# Of the saturation above which a pixel is tissue. Without the floor, the best threshold of a blank slide calls half of
# its noise tissue; without the ceiling, that of a slide full of tissue calls half of it glass.
_LEAST, _MOST = 0.05, 0.12
_DARK = 20  # brightest channel below which a pixel is no tissue but the edge of a scan, or a pen
_LARGEST_HOLE_UM2 = 2000.0  # holes in tissue up to this area are tissue


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """A slide at a coarse resolution.

    Args:
        image: The slide.
        mpp: Microns per pixel.
    """

    image: UInt8[np.ndarray, "h w 3"]
    mpp: float


def overview(slide: Slide) -> Overview:
    """Reads a slide at about `OVERVIEW_PIXELS`, a piece at a time: memory does not depend on its size.

    Raises:
        InputError: The slide's resolution is not known, or the file is damaged.
    """
    own = slide.mpp or 1.0
    longest = max(slide.size) * own
    mpp = max(own, min(longest / OVERVIEW_PIXELS, MASK_MPP[1]))
    width, height = slide.size_at(mpp)
    image = np.empty((height, width, 3), np.uint8)
    side = max(8, int(_PIECE * own / mpp))
    for y in range(0, height, side):
        for x in range(0, width, side):
            columns, rows = min(side, width - x), min(side, height - y)
            image[y : y + rows, x : x + columns] = slide.read(x, y, columns, rows, mpp=mpp)
    return Overview(image, mpp)


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """Tissue and glass.

    Args:
        tissue: True where there is tissue, or it is near.
        mpp: Microns per pixel of it.
        white: The glass: the median of what is not tissue.
    """

    tissue: Bool[np.ndarray, "h w"]
    mpp: float
    white: tuple[int, int, int]

    @property
    def share(self) -> float:
        """Of the slide that is tissue, 0..1."""
        return float(self.tissue.mean())

    def tiles(self, grid: Grid, mpp: float) -> Bool[np.ndarray, " n"]:
        """Whether each tile of a grid over pixels of `mpp` microns has tissue in its core."""
        return np.array([self._touches(tile.core, mpp) for tile in grid], bool)

    def _touches(self, box: Box, mpp: float) -> bool:
        scale = mpp / self.mpp
        height, width = self.tissue.shape
        top, left = min(int(box.y * scale), height - 1), min(int(box.x * scale), width - 1)
        bottom = max(math.ceil((box.y + box.height) * scale), top + 1)
        right = max(math.ceil((box.x + box.width) * scale), left + 1)
        return bool(self.tissue[top:bottom, left:right].any())


def find_ground(seen: Overview, *, reach_um: float) -> Ground:
    """Tissue by its saturation, closed, small holes filled, and widened.

    Args:
        seen: The slide.
        reach_um: Microns round tissue that count as tissue.
    """
    from scipy import ndimage

    step = max(1, round(MASK_MPP[0] / seen.mpp))
    image = _reduced(seen.image, step)
    mpp = seen.mpp * step
    saturation = _saturation(image)
    tissue = saturation > np.clip(_otsu(saturation), _LEAST, _MOST)
    glass = image[~tissue & (image.max(axis=2) >= _DARK)]
    white = np.median(glass, axis=0) if len(glass) else np.array([255, 255, 255])
    tissue = _without_small_holes(_closed(tissue), _LARGEST_HOLE_UM2 / mpp**2)
    tissue = ndimage.binary_dilation(tissue, np.ones((3, 3), bool), iterations=max(1, round(reach_um / mpp)))
    red, green, blue = (round(float(value)) for value in white)
    return Ground(tissue, mpp, (red, green, blue))


def _reduced(image: UInt8[np.ndarray, "h w 3"], step: int) -> UInt8[np.ndarray, "r c 3"]:
    """Means of blocks; the last ones may be smaller."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).reduce(step))


def _saturation(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Of the colour, 0..1; 0 where it is too dark to tell."""
    high, low = image.max(axis=2).astype(np.float32), image.min(axis=2).astype(np.float32)
    return np.where(high >= _DARK, (high - low) / np.maximum(high, 1.0), np.float32(0)).astype(np.float32)


def _otsu(saturation: Float32[np.ndarray, "h w"]) -> float:
    from skimage.filters import threshold_otsu

    return float(threshold_otsu(saturation))


def _closed(tissue: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Gaps of up to two pixels are closed; the border of the slide opens none."""
    from scipy import ndimage

    square = np.ones((3, 3), bool)
    return np.asarray(ndimage.binary_erosion(ndimage.binary_dilation(tissue, square), square, border_value=1))


def _without_small_holes(tissue: Bool[np.ndarray, "h w"], largest: float) -> Bool[np.ndarray, "h w"]:
    from scipy import ndimage

    holes, _ = ndimage.label(~tissue)
    small = np.bincount(holes.ravel()) <= largest
    small[0] = False  # tissue itself
    return tissue | small[holes]
