"""An image or a slide, read a window at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from polydit.vstain.data.images import read_mask
from polydit.vstain.slides.reading import open_slide
from polydit.vstain.slides.settings import TIFFS, VENDORS

TILE: Final = 512
"""Pixels of a side of the tiles in which a slide is measured."""
MOST_WHOLE: Final = 2048 * 2048
"""Pixels of an image that is measured whole."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Something that is read in windows.

    Args:
        size: Width and height in pixels.
        window: Gives the pixels at (x, y, width, height): 8-bit colours of shape (height, width, 3), or the truth
            values of a mask of shape (height, width).
        mpp: Microns per pixel; None = not known.
    """

    size: tuple[int, int]
    window: Callable[[int, int, int, int], np.ndarray]
    mpp: float | None = None

    @property
    def is_slide(self) -> bool:
        """It is measured in tiles, not whole."""
        return self.size[0] * self.size[1] > MOST_WHOLE

    def tiles(self) -> Iterator[tuple[int, int, int, int]]:
        """Windows (x, y, width, height) that cover it, row by row; the last ones are smaller."""
        width, height = self.size
        side = TILE if self.is_slide else max(self.size)
        for y in range(0, height, side):
            for x in range(0, width, side):
                yield x, y, min(side, width - x), min(side, height - y)


@contextmanager
def open_picture(path: Path, *, mpp: float | None = None, own: float | None = None) -> Iterator[Picture]:
    """Opens an image or a slide.

    Args:
        path: The file.
        mpp: Microns per pixel at which to read it, if its own are known; None = its finest level.
        own: Its own microns per pixel, in place of what the file says.

    Raises:
        InputError: It cannot be read.
        MissingExtraError: OpenSlide is needed and not installed.
    """
    with open_slide(path, mpp=own) as slide:
        own = slide.mpp
        slide.mpp = own or 1.0  # without a resolution the pixel is the unit
        unit = slide.working_mpp(mpp) if own and mpp else slide.mpp

        def window(x: int, y: int, width: int, height: int) -> np.ndarray:
            return slide.read(x, y, width, height, mpp=unit)

        yield Picture(slide.size_at(unit), window, unit if own else None)


@contextmanager
def open_mask(path: Path | None) -> Iterator[Picture | None]:
    """Opens a mask; no path gives none.

    Raises:
        InputError: It cannot be read.
    """
    if path is None:
        yield None
    elif path.suffix.lower() in TIFFS | VENDORS:
        with open_picture(path) as picture:
            yield Picture(picture.size, lambda *place: np.asarray(picture.window(*place).any(axis=2)))
    else:
        mask = read_mask(path)

        def window(x: int, y: int, width: int, height: int) -> np.ndarray:
            return np.asarray(mask[y : y + height, x : x + width])

        yield Picture((mask.shape[1], mask.shape[0]), window)
