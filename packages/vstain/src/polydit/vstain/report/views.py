"""What a page shows of an image or a slide: the whole at the size of a screen, or one tile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from polydit.core.errors import InputError, PolyditError
from polydit.vstain.colour import coarse_mask, dab
from polydit.vstain.evaluate.inputs import Virtual
from polydit.vstain.evaluate.match import Pair
from polydit.vstain.evaluate.pictures import MOST_WHOLE, TILE, open_mask, open_picture
from polydit.vstain.slides.reading import open_slide

MOST_SIDE: Final = 512
"""Pixels of a side of what is shown."""
_MOST_READ: Final = 4096 * 4096  # pixels of the level that an overview is made from


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A virtual stain as it is shown.

    Args:
        ihc: The stain.
        mask: Where it is positive, by the model or else by its DAB.
        predicted: The mask is the model's.
        he: The H&E of the same place; None = not at hand.
    """

    ihc: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    predicted: bool
    he: UInt8[np.ndarray, "r c 3"] | None


class Window(NamedTuple):
    """A part of an image."""

    x: int
    y: int
    width: int
    height: int


def whole(virtual: Virtual) -> View:
    """All of an item, at most `MOST_SIDE` pixels wide and high.

    Raises:
        PolyditError: It cannot be read.
    """
    ihc = overview(virtual.small or virtual.image)
    mask = _overview_of_mask(virtual.mask, ihc.shape[:2]) if virtual.mask else None
    return View(
        ihc=ihc,
        mask=coarse_mask(ihc) if mask is None else mask,
        predicted=mask is not None,
        he=_he(virtual),
    )


def detail(virtual: Virtual) -> View | None:
    """The place of an item that carries the most DAB, at its own resolution; None if `whole` shows it so.

    Raises:
        PolyditError: It cannot be read.
    """
    with open_picture(virtual.image) as picture, open_mask(virtual.mask) as predicted:
        size, mpp = picture.size, picture.mpp
        if max(size) <= MOST_SIDE:
            return None
        window = _darkest(overview(virtual.small or virtual.image), size)
        ihc = picture.window(*window)
        mask = predicted.window(*window) if predicted else coarse_mask(ihc)
    return View(
        ihc=ihc, mask=mask, predicted=predicted is not None, he=_he_window(virtual, size, window, mpp)
    )


def tile(pair: Pair, x: int, y: int) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "r c 3"], bool]:
    """A tile that was measured: the virtual stain, the real one, and whether it is a part of a slide.

    Args:
        pair: Of them.
        x: Left edge of the tile.
        y: Its upper edge.

    Raises:
        PolyditError: One of them cannot be read.
    """
    virtual, reference = pair
    with open_picture(virtual.image) as ours, open_picture(reference.image, mpp=ours.mpp) as real:
        if ours.is_slide:
            width, height = (min(TILE, side - at) for side, at in zip(ours.size, (x, y), strict=True))
            return ours.window(x, y, width, height), real.window(x, y, width, height), True
    return overview(virtual.image), overview(reference.image), False


def overview(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """An image at the size of a screen.

    Raises:
        PolyditError: It cannot be read, or only by taking all of a slide into memory.
    """
    with open_slide(path) as slide:
        scale = max(1.0, max(slide.size) / MOST_SIDE)
        level = [level for level in slide.levels if level.downsample <= scale * 1.01][-1]
        if level.width * level.height > _MOST_READ:
            raise InputError("has no small level to make an overview from", where=str(path))
        slide.mpp = 1.0  # the pixel is the unit
        return slide.read(0, 0, *slide.size_at(scale), mpp=scale)


def _darkest(small: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> Window:
    """The window of `MOST_SIDE` around the place of most DAB.

    Args:
        small: The whole, at the size of a screen.
        size: Its width and height at its own resolution.
    """
    from scipy import ndimage

    scale = max(size) / max(small.shape[:2])
    amounts = ndimage.uniform_filter(dab(small), size=max(1, round(MOST_SIDE / scale)))
    row, column = np.unravel_index(int(amounts.argmax()), amounts.shape)
    width, height = min(MOST_SIDE, size[0]), min(MOST_SIDE, size[1])
    left, top = round(float(column) * scale) - width // 2, round(float(row) * scale) - height // 2
    return Window(min(max(left, 0), size[0] - width), min(max(top, 0), size[1] - height), width, height)


def _overview_of_mask(path: Path, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """A mask in the size of its image's overview."""
    from PIL import Image

    with open_mask(path) as picture:
        assert picture is not None
        if picture.size[0] * picture.size[1] <= MOST_WHOLE:
            full = picture.window(0, 0, *picture.size).astype(np.uint8) * np.uint8(255)
        else:
            full = overview(path)[..., 0]
    small = Image.fromarray(full).resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(small) > 127


def _he(virtual: Virtual) -> UInt8[np.ndarray, "r c 3"] | None:
    """The H&E of an item; None if it is gone or cannot be read."""
    path = virtual.small_he or virtual.he
    try:
        return overview(path) if path else None
    except PolyditError:
        return None


def _he_window(
    virtual: Virtual, size: tuple[int, int], window: Window, mpp: float | None
) -> UInt8[np.ndarray, "r c 3"] | None:
    """A part of the H&E; None if it is gone, cannot be read, or is not of the stain's size."""
    if virtual.he is None:
        return None
    try:
        with open_picture(virtual.he, mpp=mpp, own=virtual.he_mpp) as picture:
            return picture.window(*window) if picture.size == size else None
    except PolyditError:
        return None
