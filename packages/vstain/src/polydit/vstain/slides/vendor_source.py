"""Scanner vendors' slides, by OpenSlide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from polydit.core.errors import InputError, MissingExtraError
from polydit.vstain.slides.reading import Level, square_mpp


class VendorSource:
    """A slide that OpenSlide reads.

    Raises:
        MissingExtraError: OpenSlide is not installed.
        InputError: OpenSlide does not know the file, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            import openslide
        except (
            ImportError,
            OSError,
        ) as error:  # the Python package is there and its C library is not: OSError
            raise MissingExtraError(
                "openslide-python", "polydit-vstain[wsi]", purpose=f"reading {path.name}"
            ) from error
        self._path, self._error = path, openslide.OpenSlideError
        try:
            self._slide = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            reason = str(error) or "of no format that it knows"
            raise InputError(f"OpenSlide cannot read it: {reason}", where=str(path)) from error
        sizes, downsamples = self._slide.level_dimensions, self._slide.level_downsamples
        self.levels = [
            Level(width, height, float(downsample))
            for (width, height), downsample in zip(sizes, downsamples, strict=True)
        ]
        properties = self._slide.properties
        self.mpp = _mpp(properties, path)
        colour = properties.get("openslide.background-color", "FFFFFF")
        self._background = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)], np.float32)

    def window(self, level: int, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a level."""
        downsample = self.levels[level].downsample
        place = round(x * downsample), round(y * downsample)
        try:
            image = self._slide.read_region(place, level, (width, height))
        except self._error as error:
            raise InputError(f"is damaged: {error}", where=str(self._path)) from error
        rgba = np.asarray(image)
        alpha = rgba[..., 3:]
        if alpha.min() == 255:
            return np.ascontiguousarray(rgba[..., :3])
        share = alpha.astype(np.float32) / 255
        return np.rint(rgba[..., :3] * share + self._background * (1 - share)).astype(np.uint8)

    def close(self) -> None:
        """Closes the file."""
        self._slide.close()


def _mpp(properties: Any, path: Path) -> float | None:
    try:
        x, y = (float(properties[f"openslide.mpp-{axis}"]) for axis in "xy")
    except (KeyError, ValueError):
        return None
    return square_mpp(x, y, path)
