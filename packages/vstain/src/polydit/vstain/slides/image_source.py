"""Plain images, decoded whole: PNG, JPEG, and the small TIFFs whose codec only Pillow has."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import UInt8

from polydit.core.errors import InputError
from polydit.vstain.image_file import on_glass, opened
from polydit.vstain.slides.reading import Level

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PIXELS: Final = 100_000_000  # in memory at once: 300 MB
_FORMATS: Final = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")


class ImageSource:
    """An image of one level; its pixels are decoded when they are first asked for.

    Raises:
        InputError: It is no image, damaged, or of more than `MOST_PIXELS`.
    """

    mpp = None  # what such files say of their resolution is made for printers

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pixels: UInt8[np.ndarray, "h w 3"] | None = None
        with _opened(path) as image:
            self.levels = [Level(image.width, image.height, 1.0)]

    def window(self, level: int, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of the one level."""
        if self._pixels is None:
            with _opened(self._path) as image:
                self._pixels = _colours(image, self._path)
        return self._pixels[y : y + height, x : x + width]

    def close(self) -> None:
        """Lets the pixels go."""
        self._pixels = None


def _colours(image: Image, path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """As 8-bit sRGB."""
    if image.mode == "F":
        raise InputError("holds real numbers", where=str(path), expected="an image of 8 or 16 bits")
    if image.mode.startswith("I"):  # grey of 16 bits, also where Pillow holds it as 32
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise InputError("has more than 16 bits per pixel", where=str(path), expected="8 or 16 bits")
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(on_glass(image))


def _opened(path: Path) -> AbstractContextManager[Image]:
    hint = "Store it as a tiled TIFF: that is read piece by piece."
    return opened(path, formats=_FORMATS, most_pixels=MOST_PIXELS, hint=hint)
