"""Image files of unknown origin as arrays of 8-bit colours, or as masks."""

from __future__ import annotations

import zlib
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, UInt8

from polydit.core.errors import InputError
from polydit.vstain.image_file import on_glass, opened

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MOST_PIXELS = 8192 * 8192  # larger images are slides, not tiles
_COLOURS = ("RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "P", "PA")
_BITS_PER_SAMPLE = 258  # tag of a TIFF
_LOSSY = ("JPEG", "MPO")


def read_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of an image in sRGB; what is transparent becomes white, as glass is.

    Of a PNG of 16 bits the upper 8 are taken: its samples span the whole range. A TIFF of 16 bits is refused, since
    nothing says how many of them the camera used.

    Raises:
        InputError: No such file, no image, a damaged, grey or 16-bit one, or more than `MOST_PIXELS`.
    """
    with _opened(path) as image:
        if image.mode not in _COLOURS:
            raise InputError(f"it has no colours (mode {image.mode})", where=str(path), expected="8-bit RGB")
        if max(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))) > 8:
            raise InputError("it has more than 8 bits per colour", where=str(path), expected="8-bit RGB")
        return np.array(on_glass(image))  # asarray would be read-only, which torch warns of


def read_mask(path: Path) -> Bool[np.ndarray, "h w"]:
    """A mask: True where a pixel is not 0 (of a palette: not its first colour).

    Raises:
        InputError: No such file, no image, a damaged or lossy one, or more than `MOST_PIXELS`.
    """
    with _opened(path) as image:
        if image.format in _LOSSY:
            raise InputError("a JPEG has no exact zeros", where=str(path), expected="a mask as PNG or TIFF")
        values = np.asarray(image.convert("RGB") if image.mode.upper().endswith("A") else image)
    return values != 0 if values.ndim == 2 else (values != 0).any(axis=2)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header alone.

    Raises:
        InputError: No such file, no image, or more than `MOST_PIXELS`.
    """
    with _opened(path) as image:
        return image.size


def png_bytes(values: UInt8[np.ndarray, "h w 3"] | Bool[np.ndarray, "h w"]) -> bytes:
    """An image, or a mask as 0 and 255, as a PNG file."""
    from PIL import Image

    pixels = values.astype(np.uint8) * np.uint8(255) if values.dtype == bool else values
    handle = BytesIO()
    # tissue is noise to a compressor: looking for repetitions takes time and finds none
    Image.fromarray(pixels).save(handle, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return handle.getvalue()


def resized(
    image: UInt8[np.ndarray, "h w 3"], width: int, height: int
) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """An image at another size; the filter widens as the image shrinks, so that nothing aliases."""
    from PIL import Image

    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def resized_mask(
    mask: Bool[np.ndarray, "h w"], width: int, height: int
) -> Bool[np.ndarray, "{height} {width}"]:
    """A mask at another size: True where half of a pixel's area or more was."""
    from PIL import Image

    share = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(share.resize((width, height), Image.Resampling.BOX)) >= 128


def _opened(path: Path) -> AbstractContextManager[Image]:
    return opened(path, formats=("PNG", "JPEG", "TIFF"), most_pixels=MOST_PIXELS)
