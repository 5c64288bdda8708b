"""Image files of unknown origin, by Pillow: only decoders that are named, within a number of pixels, no surprises."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from polydit.core.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    struct.error,
    zlib.error,
)


@contextmanager
def opened(
    path: Path, *, formats: Sequence[str], most_pixels: int, hint: str | None = None
) -> Iterator[Image]:
    """An image of which only the header has been read; errors of decoding it in the block are of the file.

    Args:
        path: The file.
        formats: Pillow's names of those that are tried, whatever the file's name says: other decoders start programs.
        most_pixels: That may be decoded.
        hint: What to do with larger ones.

    Raises:
        InputError: No such file, no image of the formats, a damaged one, or one of more pixels.
    """
    from PIL import Image

    def too_large(problem: str) -> InputError:
        return InputError(problem, where=str(path), expected=f"at most {most_pixels:,}", hint=hint)

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of metadata that do not matter here, and of sizes: ours is the limit
        try:
            image = Image.open(path, formats=list(formats))
        except Image.DecompressionBombError as error:
            raise too_large("has too many pixels") from error
        except FileNotFoundError as error:
            raise InputError("there is no such file", where=str(path)) from error
        except _DAMAGED as error:
            expected = f"{', '.join(formats[:-1])} or {formats[-1]}"
            raise InputError("cannot be read as an image", where=str(path), expected=expected) from error
        with image:
            if image.width * image.height > most_pixels:
                raise too_large(f"has {image.width} x {image.height} pixels")
            try:
                yield image
            except _DAMAGED as error:
                raise InputError(f"the image is damaged: {error}", where=str(path)) from error


def on_glass(image: Image) -> Image:
    """As 8-bit sRGB; what is transparent becomes white, as glass is."""
    from PIL import Image as Images

    if image.has_transparency_data:
        light = Images.new("RGBA", image.size, "white")
        image = Images.alpha_composite(light, image.convert("RGBA"))
    return image.convert("RGB")
