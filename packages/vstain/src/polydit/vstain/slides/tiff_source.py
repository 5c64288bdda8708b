"""TIFF and OME-TIFF of any size, read piece by piece (a tile or a strip) by tifffile."""

from __future__ import annotations

import logging
import math
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
from jaxtyping import UInt8

from polydit.core.errors import InputError
from polydit.vstain.slides.reading import Level, square_mpp

MOST_PIECE_BYTES: Final = 256 << 20  # of one tile or strip, decoded
_KEPT_BYTES = 16 << 20  # decoded pieces that are kept: neighbouring windows share some
_CHEAP_BYTES = 256 << 10  # a deflated piece below this cannot fill the memory: it grows at most by 1032
_MOST_XML = 16 << 20
_DEFLATE = (8, 32946)
_MICRONS = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4, "inch": 25400.0}
_PER_UNIT = {2: 25400.0, 3: 1e4}  # microns of TIFF's units of resolution: inch and centimetre
_DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    EOFError,
    struct.error,
    zlib.error,
    OverflowError,
)


class CodecError(InputError):
    """The pixels are packed by a codec that is not installed."""


class TiffSource:
    """The first image of a TIFF file, with its pyramid if it has one.

    Raises:
        InputError: It is no TIFF, truncated, no colour or grey image, or cut into pieces too large to decode.
        CodecError: Its codec is not installed.
    """

    def __init__(self, path: Path) -> None:
        import tifffile

        self._path = path
        self._file: Any = None
        self._kept = _Kept()
        try:
            with _silent():
                self._file = tifffile.TiffFile(path)
                self._pages = _pages(self._file, path)
            width, height = self._pages[0].imagewidth, self._pages[0].imagelength
            self.levels = [
                Level(page.imagewidth, page.imagelength, _downsample(page, width, height))
                for page in self._pages
            ]
            self.mpp = _mpp(self._file, path)
        except _DAMAGED as error:
            self.close()
            raise InputError(f"cannot be read as TIFF: {error}", where=str(path)) from error
        except BaseException:
            self.close()
            raise

    def window(self, level: int, x: int, y: int, width: int, height: int) -> UInt8[np.ndarray, "h w 3"]:
        """Pixels of a level."""
        page = self._pages[level]
        tall, wide = _piece_size(page)
        pixels = np.empty((height, width, 3), np.uint8)
        for row in range(y // tall, -(-(y + height) // tall)):
            for column in range(x // wide, -(-(x + width) // wide)):
                piece = self._piece(level, row, column)
                top, left = row * tall - y, column * wide - x
                rows = slice(max(top, 0), min(top + piece.shape[0], height))
                columns = slice(max(left, 0), min(left + piece.shape[1], width))
                pixels[rows, columns] = piece[
                    rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
                ]
        return pixels

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def _piece(self, level: int, row: int, column: int) -> UInt8[np.ndarray, "h w 3"]:
        page = self._pages[level]
        tall, wide = _piece_size(page)
        across = -(-page.imagewidth // wide)
        number = row * across + column
        kept = self._kept.get((level, number))
        if kept is None:
            # No wider or taller than the image: strips of the last rows are shorter than the others.
            shape = (min(tall, page.imagelength - row * tall), min(wide, page.imagewidth - column * wide))
            try:
                kept = _colours(self._samples(page, number, shape), page)
            except _DAMAGED as error:
                raise InputError(f"is damaged: {error}", where=str(self._path)) from error
            self._kept.add((level, number), kept)
        return kept

    def _samples(self, page: Any, number: int, shape: tuple[int, int]) -> np.ndarray:
        """Rows, columns and samples of a piece, cut to `shape`."""
        if page.planarconfig == 2:
            step = len(page.dataoffsets) // page.samplesperpixel
            planes = [self._decoded(page, number + n * step, shape) for n in range(page.samplesperpixel)]
            return np.concatenate(planes, axis=-1)
        return self._decoded(page, number, shape)

    def _decoded(self, page: Any, index: int, shape: tuple[int, int]) -> np.ndarray:
        offset, size = page.dataoffsets[index], page.databytecounts[index]
        samples = page.samplesperpixel if page.planarconfig == 1 else 1
        if size == 0:  # sparse: nothing was ever written there
            return np.full((*shape, samples), np.iinfo(page.dtype).max, page.dtype)
        handle = self._file.filehandle
        handle.seek(offset)
        data = handle.read(size)
        if page.compression in _DEFLATE and size > _CHEAP_BYTES:
            _refuse_bomb(data, math.prod(_piece_size(page)) * samples * page.dtype.itemsize)
        values = page.decode(data, index, jpegtables=page.jpegtables)[0]
        return np.asarray(values)[0, : shape[0], : shape[1]]


class _Kept:
    """The pieces that were asked for last."""

    def __init__(self) -> None:
        self._pieces: OrderedDict[tuple[int, int], UInt8[np.ndarray, "h w 3"]] = OrderedDict()
        self._bytes = 0

    def get(self, key: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"] | None:
        if key in self._pieces:
            self._pieces.move_to_end(key)
        return self._pieces.get(key)

    def add(self, key: tuple[int, int], piece: UInt8[np.ndarray, "h w 3"]) -> None:
        self._pieces[key] = piece
        self._bytes += piece.nbytes
        while self._bytes > _KEPT_BYTES and len(self._pieces) > 1:
            self._bytes -= self._pieces.popitem(last=False)[1].nbytes


@contextmanager
def _silent() -> Iterator[None]:
    """tifffile logs what it finds wrong in a file; what matters of that, we check."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _pages(file: Any, path: Path) -> list[Any]:
    """The first image of a file, level by level."""
    series = file.series[0]
    if series.axes not in ("YX", "YXS", "SYX"):
        problem = f"is a stack with the axes {series.axes}"
        raise InputError(problem, where=str(path), expected="one colour image")
    pages = [level.pages[0].aspage() for level in series.levels]
    for page in pages:
        _check(page, path)
    return pages


def _check(page: Any, path: Path) -> None:
    """Refuses what cannot be read, from the header alone."""
    from tifffile import TIFF

    if page.compression != 1 and page.compression not in TIFF.DECOMPRESSORS:
        raise CodecError(
            f"is packed by {getattr(page.compression, 'name', page.compression)}, and no codec for it is here",
            where=str(path),
            hint='Run: pip install imagecodecs "polydit-vstain[wsi]"',
        )
    kinds = ("uint8", "uint16", "bool")
    if page.dtype is None or page.dtype.name not in kinds or page.samplesperpixel not in (1, 2, 3, 4):
        problem = f"has {page.samplesperpixel} samples of type {page.dtype} per pixel"
        raise InputError(problem, where=str(path), expected="1 to 4 of 8 or 16 bits")
    tall, wide = _piece_size(page)
    if min(tall, wide) < 1 or page.imagewidth < 1 or page.imagelength < 1:
        raise InputError("holds no pixels", where=str(path))
    decoded = tall * wide * page.samplesperpixel * page.dtype.itemsize
    if decoded > MOST_PIECE_BYTES:
        raise InputError(
            f"is cut into pieces of {wide} x {tall} pixels, each of which would have to be in memory whole",
            where=str(path),
            expected=f"at most {MOST_PIECE_BYTES >> 20} MiB",
            hint="Store it with tiles, such as of 256 x 256 pixels.",
        )
    _check_pieces(page, path)


def _check_pieces(page: Any, path: Path) -> None:
    tall, wide = _piece_size(page)
    planes = page.samplesperpixel if page.planarconfig == 2 else 1
    number = -(-page.imagelength // tall) * -(-page.imagewidth // wide) * planes
    if len(page.dataoffsets) < number or len(page.databytecounts) < number:
        problem = f"lists {len(page.dataoffsets)} of {number} pieces"
        raise InputError(f"is damaged: {problem}", where=str(path))
    ends = np.asarray(page.dataoffsets, np.float64) + np.asarray(page.databytecounts, np.float64)
    size = path.stat().st_size
    if ends.max() > size:
        problem = f"is truncated: it has {size:,} bytes"
        raise InputError(problem, where=str(path), expected=f"{int(ends.max()):,}", hint="Get it again.")


def _piece_size(page: Any) -> tuple[int, int]:
    """Rows and columns of a tile, or of a strip."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def _downsample(page: Any, width: int, height: int) -> float:
    """Whole where the level is one without the rows and columns that were left over; else the mean of both axes."""
    ratio = float((width / page.imagewidth + height / page.imagelength) / 2)
    whole = max(1, round(ratio))
    left_over = (
        0 <= width - whole * page.imagewidth < whole and 0 <= height - whole * page.imagelength < whole
    )
    return float(whole) if left_over else ratio


def _refuse_bomb(data: bytes, expected: int) -> None:
    """Raises ValueError for a piece that unpacks to more than it may; takes memory for `expected` bytes at most."""
    unpacker = zlib.decompressobj()
    if len(unpacker.decompress(data, expected + 1)) > expected:
        raise ValueError(f"a piece unpacks to more than its {expected:,} bytes")


def _colours(samples: np.ndarray, page: Any) -> UInt8[np.ndarray, "h w 3"]:
    """As 8-bit sRGB; what is transparent becomes white, as glass is."""
    if page.photometric == 3:  # a palette of 16-bit colours
        return (page.colormap[:, samples[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0)
    if samples.dtype == bool:
        samples = samples.astype(np.uint8) * np.uint8(255)
    elif samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    if page.photometric == 0:  # 0 is white
        samples = 255 - samples
    colours = samples[..., :1].repeat(3, axis=-1) if samples.shape[-1] < 3 else samples[..., :3]
    if samples.shape[-1] not in (2, 4):
        return np.ascontiguousarray(colours)
    share = samples[..., -1:].astype(np.float32) / 255
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def _mpp(file: Any, path: Path) -> float | None:
    """From OME's metadata, else from the tags of the first page."""
    sizes = _ome_sizes(file.ome_metadata) if file.is_ome else None
    sizes = sizes or _tag_sizes(file.pages[0])
    return square_mpp(*sizes, path) if sizes else None


def _ome_sizes(text: str | None) -> tuple[float, float] | None:
    if not text or len(text) > _MOST_XML or "<!ENTITY" in text:
        return None
    try:
        pixels = next(e for e in ElementTree.fromstring(text).iter() if e.tag.rpartition("}")[2] == "Pixels")
        x, y = (
            float(pixels.attrib[f"PhysicalSize{axis}"])
            * _MICRONS[pixels.attrib.get(f"PhysicalSize{axis}Unit", "µm")]
            for axis in "XY"
        )
    except (ElementTree.ParseError, StopIteration, KeyError, ValueError):
        return None
    return x, y


def _tag_sizes(page: Any) -> tuple[float, float] | None:
    unit = page.tags.valueof("ResolutionUnit", default=2)  # TIFF 6.0: inch, if nothing is said
    try:
        x, y = (page.tags.valueof(name) for name in ("XResolution", "YResolution"))
        return tuple(_PER_UNIT[int(unit)] * below / above for above, below in (x, y))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
