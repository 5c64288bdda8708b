"""Pyramids as TIFF: streamed level by level, each the mean of 2 x 2 pixels of the one before."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from polydit.core.jobs.files import atomic_file
from polydit.vstain.slides.settings import PyramidFormat

_TILE = 256
_COARSEST = 512  # longer side at which a pyramid ends
_CLASSIC_BYTES = 3 << 30  # uncompressed; beyond it offsets might need more than 32 bits
_MICRONS_PER_CM = 1e4


@runtime_checkable
class Raster(Protocol):
    """An image of which windows can be had."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def channels(self) -> int: ...

    def window(self, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w c"]: ...


@dataclass(frozen=True, slots=True)
class RawRaster:
    """An image in a file of its bare pixels, row by row."""

    path: Path
    width: int
    height: int
    channels: int

    def window(self, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w c"]:
        """A part of the image."""
        line = self.width * self.channels
        with self.path.open("rb") as handle:
            handle.seek(y * line)
            rows = np.frombuffer(handle.read(height * line), np.uint8)
        return rows.reshape(height, self.width, self.channels)[:, x : x + width]


def build_levels(image: Raster, scratch: Path, *, binary: bool = False) -> list[Raster]:
    """The image and its halves down to one of at most 512 pixels, which lie in `scratch`.

    Args:
        image: The finest level.
        scratch: Folder for the others.
        binary: Pixels are 0 or 255, and stay so: a coarser one is what half of its four are.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    levels: list[Raster] = [image]
    while (
        max(levels[-1].width, levels[-1].height) > _COARSEST and min(levels[-1].width, levels[-1].height) > 1
    ):
        levels.append(_halved(levels[-1], scratch / f"level-{len(levels)}.raw", binary))
    return levels


def write_pyramid(
    path: Path, levels: Sequence[Raster], *, mpp: float, format: PyramidFormat = "ome", description: str = ""
) -> None:
    """Writes a pyramid as tiled, deflated TIFF that appears under its name when it is whole.

    Args:
        path: The file.
        levels: From the finest on, each half as large as the one before.
        mpp: Microns per pixel of the finest.
        format: "ome": OME-TIFF with the coarser levels as SubIFDs, for QuPath and Bio-Formats. "tiff": a page for each
            level, for OpenSlide.
        description: What the image is; it becomes a part of the file.

    Raises:
        OSError: The disk is full or refuses.
    """
    import tifffile

    pixels = levels[0].width * levels[0].height * levels[0].channels
    big = pixels * 4 / 3 > _CLASSIC_BYTES
    with atomic_file(path) as handle, tifffile.TiffWriter(handle, bigtiff=big, ome=format == "ome") as writer:
        for number, level in enumerate(levels):
            # what the coarser levels have lost of odd rows and columns does not count
            at = mpp * 2**number
            writer.write(
                _tiles(level), **_page(level, at), **_place(levels, number, mpp, format, description)
            )


def thumbnail(levels: Sequence[Raster], longest: int = 1024) -> UInt8[np.ndarray, "h w c"]:
    """The image with a longer side of at most `longest` pixels."""
    from PIL import Image

    level = next(
        (level for level in reversed(levels) if max(level.width, level.height) >= longest), levels[0]
    )
    pixels = level.window(0, 0, level.width, level.height)
    scale = longest / max(level.width, level.height)
    if scale >= 1:
        return pixels
    size = max(1, round(level.width * scale)), max(1, round(level.height * scale))
    image = Image.fromarray(pixels[..., 0] if level.channels == 1 else pixels)
    small = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    return small[..., None] if level.channels == 1 else small


def _page(level: Raster, mpp: float) -> dict[str, Any]:
    colour = level.channels == 3
    return {
        "shape": (level.height, level.width, 3) if colour else (level.height, level.width),
        "dtype": np.uint8,
        "photometric": "rgb" if colour else "minisblack",
        "tile": (_TILE, _TILE),
        "compression": "zlib",
        "resolution": (_MICRONS_PER_CM / mpp,) * 2,
        "resolutionunit": "CENTIMETER",
        "software": "vstain",
        "maxworkers": 1,
    }


def _place(
    levels: Sequence[Raster], number: int, mpp: float, format: PyramidFormat, description: str
) -> dict[str, Any]:
    """How a level is told to be one of the pyramid."""
    if format == "tiff":
        text = description.encode("ascii", "replace").decode()  # all that a TIFF tag may hold
        about = {"description": text} if number == 0 and text else {}
        return {"metadata": None, "subfiletype": int(number > 0), **about}
    if number > 0:
        return {"subfiletype": 1}
    metadata = {
        "axes": "YXS" if levels[0].channels == 3 else "YX",
        "PhysicalSizeX": mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": "µm",
        "Description": description,
        # of the content, not of the moment: the same slide gives the same bytes
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{description} {levels[0].width} {levels[0].height}")),
    }
    return {"metadata": metadata, "subifds": len(levels) - 1}


def _tiles(level: Raster) -> Iterator[UInt8[np.ndarray, "256 256 *c"]]:
    """In the order of rows; those of the edges are filled up by their last pixels."""
    for y in range(0, level.height, _TILE):
        rows = min(_TILE, level.height - y)
        band = level.window(0, y, level.width, rows)
        for x in range(0, level.width, _TILE):
            tile = band[:, x : x + _TILE]
            missing = ((0, _TILE - rows), (0, _TILE - tile.shape[1]), (0, 0))
            whole = np.pad(tile, missing, mode="edge")
            yield np.ascontiguousarray(whole if level.channels == 3 else whole[..., 0])


def _halved(image: Raster, path: Path, binary: bool) -> RawRaster:
    width, height = image.width // 2, image.height // 2
    with path.open("wb") as handle:
        for y in range(0, 2 * height, _TILE):
            rows = min(_TILE, 2 * height - y)
            handle.write(_half(image.window(0, y, 2 * width, rows), binary).tobytes())
    return RawRaster(path, width, height, image.channels)


def _half(band: UInt8[np.ndarray, "r c d"], binary: bool) -> UInt8[np.ndarray, "h w d"]:
    """Means of 2 x 2 pixels, to the nearest."""
    height, width, channels = band.shape
    total = band.reshape(height // 2, 2, width // 2, 2, channels).sum(axis=(1, 3), dtype=np.uint16)
    if binary:
        return (total >= 2 * 255).astype(np.uint8) * np.uint8(255)
    return ((total + 2) // 4).astype(np.uint8)
