"""One reader for slides and images of every kind: any window at any resolution, as 8-bit sRGB.

World coordinates are pixels of the resolution that is asked for, from the slide's upper left corner. A window may reach
beyond the slide: there is glass, in the colour that the caller gives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from polydit.core.errors import InputError, MissingExtraError
from polydit.vstain.slides.settings import IMAGES, SUFFIXES, TIFFS, VENDORS

FEWEST_PIXELS: Final = 16  # of a side: the patch of a network and its surroundings
WHITE: Final = (255, 255, 255)
_SAME = 0.02  # resolutions that differ by less are taken for the same: scanners differ by more between slides

# Microns per pixel of a microscope. A TIFF without one often claims 72 dpi, which is 353.
_FINEST, _COARSEST = 0.01, 50.0
_SQUARE = 0.05  # relative difference of the axes up to which a pixel is square


class Level(NamedTuple):
    """One resolution of a pyramid; `downsample` pixels of level 0 make one of its."""

    width: int
    height: int
    downsample: float


@runtime_checkable
class Source(Protocol):
    """A file: its levels, and their pixels."""

    @property
    def levels(self) -> Sequence[Level]: ...

    @property
    def mpp(self) -> float | None: ...

    def window(self, level: int, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a level; the window lies within it."""
        ...

    def close(self) -> None: ...


class Slide:
    """A slide, or an image that is treated as one; made by `open_slide`, used in a `with` block.

    Attributes:
        path: The file.
        levels: Its resolutions, the finest first.
        mpp: Microns per pixel of level 0; None = the file does not say.
    """

    def __init__(self, path: Path, source: Source, mpp: float | None = None) -> None:
        self.path, self._source = path, source
        self.levels = tuple(source.levels)
        self.mpp = source.mpp if mpp is None else mpp
        width, height = self.size
        if min(width, height) < FEWEST_PIXELS:
            expected = f"at least {FEWEST_PIXELS} pixels per side"
            raise InputError(f"is {width} x {height} pixels", where=str(path), expected=expected)

    def __enter__(self) -> Slide:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.close()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of level 0."""
        return self.levels[0].width, self.levels[0].height

    def working_mpp(self, wanted: float) -> float:
        """The resolution of a level that is nearly the wanted one, else that: pixels are resampled only if need be.

        Raises:
            InputError: The slide's own resolution is not known.
        """
        own = self._known_mpp()
        there = [own * level.downsample for level in self.levels]
        return min(
            (mpp for mpp in there if abs(mpp / wanted - 1) < _SAME),
            key=lambda mpp: abs(mpp / wanted - 1),
            default=wanted,
        )

    def size_at(self, mpp: float) -> tuple[int, int]:
        """Width and height in pixels of `mpp` microns, each at least 1.

        Raises:
            InputError: The slide's own resolution is not known.
        """
        scale = mpp / self._known_mpp()
        return max(1, round(self.size[0] / scale)), max(1, round(self.size[1] / scale))

    def read(
        self,
        x: int,
        y: int,
        width: int,
        height: int,
        *,
        mpp: float,
        outside: tuple[int, int, int] = WHITE,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """A window, from the coarsest level that has its detail.

        Args:
            x: Left edge in pixels of `mpp` microns; it may be negative.
            y: Upper edge.
            width: Columns.
            height: Rows.
            mpp: Microns per pixel of the result.
            outside: Colour beyond the slide.

        Raises:
            InputError: The slide's own resolution is not known, or the file is damaged.
        """
        scale = mpp / self._known_mpp()
        fine = [n for n, level in enumerate(self.levels) if level.downsample <= scale * (1 + _SAME / 2)]
        number = max(fine, key=lambda n: self.levels[n].downsample, default=0)
        ratio = scale / self.levels[number].downsample
        if abs(ratio - 1) < 1e-6:
            return self._padded(number, x, y, width, height, outside)
        reach = math.ceil(max(ratio, 1.0)) + 1  # of the filter, so that neighbouring windows agree
        left, top = math.floor(x * ratio) - reach, math.floor(y * ratio) - reach
        right, bottom = math.ceil((x + width) * ratio) + reach, math.ceil((y + height) * ratio) + reach
        pixels = self._padded(number, left, top, right - left, bottom - top, outside)
        box = (x * ratio - left, y * ratio - top, (x + width) * ratio - left, (y + height) * ratio - top)
        return _resampled(pixels, width, height, box)

    def _known_mpp(self) -> float:
        if self.mpp is None:
            raise InputError(
                "does not say how many microns a pixel has",
                where=str(self.path),
                hint="Give it as --mpp 0.5.",
            )
        return self.mpp

    def _padded(
        self, number: int, x: int, y: int, width: int, height: int, outside: tuple[int, int, int]
    ) -> UInt8[np.ndarray, "h w 3"]:
        level = self.levels[number]
        left, top = min(max(x, 0), level.width), min(max(y, 0), level.height)
        right, bottom = min(max(x + width, 0), level.width), min(max(y + height, 0), level.height)
        if (left, top, right, bottom) == (x, y, x + width, y + height):
            return self._source.window(number, x, y, width, height)
        pixels = np.empty((height, width, 3), np.uint8)
        pixels[:] = outside
        if right > left and bottom > top:
            inside = self._source.window(number, left, top, right - left, bottom - top)
            pixels[top - y : bottom - y, left - x : right - x] = inside
        return pixels


def _resampled(
    pixels: UInt8[np.ndarray, "r c 3"], width: int, height: int, box: tuple[float, float, float, float]
) -> UInt8[np.ndarray, "h w 3"]:
    """The part `box` of an image, by a triangle filter as wide as a pixel of the coarser side."""
    from PIL import Image

    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)


def open_slide(path: Path, *, mpp: float | None = None) -> Slide:
    """Opens a slide or an image of any kind that we know.

    TIFF is read by tifffile, or, where that lacks a codec, by OpenSlide or Pillow; vendors' formats by OpenSlide.

    Args:
        path: The file.
        mpp: Microns per pixel, in place of what the file says; None = as the file says.

    Raises:
        InputError: No such file, of another kind, damaged, or too large to read.
        MissingExtraError: OpenSlide is needed and not installed.
    """
    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    source = _source(path)
    try:
        return Slide(path, source, mpp)
    except InputError:
        source.close()
        raise


def _source(path: Path) -> Source:
    suffix = path.suffix.lower()
    if suffix in IMAGES:
        from polydit.vstain.slides.image_source import ImageSource

        return ImageSource(path)
    if suffix in VENDORS:
        from polydit.vstain.slides.vendor_source import VendorSource

        return VendorSource(path)
    if suffix in TIFFS:
        return _tiff_source(path)
    raise InputError("is no slide or image", where=str(path), expected=", ".join(sorted(SUFFIXES)))


def _tiff_source(path: Path) -> Source:
    from polydit.vstain.slides.image_source import ImageSource
    from polydit.vstain.slides.tiff_source import CodecError, TiffSource
    from polydit.vstain.slides.vendor_source import VendorSource

    try:
        return TiffSource(path)
    except CodecError as error:
        for other in (VendorSource, ImageSource):
            try:
                return other(path)
            except (InputError, MissingExtraError):
                continue
        raise error


def square_mpp(x: float, y: float, path: Path) -> float | None:
    """One resolution for both axes; None if they are not those of a microscope.

    Raises:
        InputError: Pixels are far from square.
    """
    if not (_FINEST < x < _COARSEST and _FINEST < y < _COARSEST):
        return None
    if abs(x / y - 1) > _SQUARE:
        raise InputError(
            f"has pixels of {x:g} x {y:g} microns",
            where=str(path),
            expected="square ones",
            hint="Give --mpp.",
        )
    return (x + y) / 2
