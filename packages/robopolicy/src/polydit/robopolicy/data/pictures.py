"""Single pictures: PNG and JPEG in and out of bytes, and pictures that lie in a table. Pixels are RGB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import CodecContext
from jaxtyping import UInt8

from polydit.core.errors import InputError
from polydit.robopolicy.data.features import MAX_SIDE

MAX_PIXELS = MAX_SIDE * MAX_SIDE
_CODECS = {b"\x89PNG": "png", b"\xff\xd8\xff": "mjpeg"}  # first bytes of a file: its decoder


def decode_picture(content: bytes, *, where: str = "") -> UInt8[np.ndarray, "h w 3"]:
    """A PNG or JPEG file as RGB. A truncated one is refused, never filled up.

    Raises:
        InputError: It is neither, damaged, or larger than 8192 x 8192.
    """
    name = next((name for start, name in _CODECS.items() if content.startswith(start)), None)
    if name is None:
        raise InputError("neither a PNG nor a JPEG picture", where=where)
    codec: Any = CodecContext.create(name, "r")
    codec.options = {"err_detect": "explode", "max_pixels": str(MAX_PIXELS)}
    try:
        frames = [*codec.decode(av.Packet(content)), *codec.decode(None)]
    except (av.FFmpegError, ValueError) as error:
        raise InputError("the picture is damaged", where=where) from error
    if len(frames) != 1:
        raise InputError(f"holds {len(frames)} pictures", where=where, expected="one")
    return np.asarray(frames[0].to_ndarray(format="rgb24"))


def encode_png(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """RGB as a PNG file."""
    codec: Any = CodecContext.create("png", "w")
    codec.height, codec.width = picture.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    packets = [*codec.encode(frame), *codec.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def check_shape(picture: np.ndarray, shape: tuple[int, int, int], *, where: str) -> np.ndarray:
    """The picture, if it has the shape that was declared.

    Raises:
        InputError: It has another one.
    """
    if picture.shape != shape:
        raise InputError(
            f"a picture of the shape {list(picture.shape)}", where=where, expected=f"{list(shape)}"
        )
    return picture


@dataclass(frozen=True, eq=False)
class ArrayFrames:
    """Pictures that are in memory, such as those that were just rendered."""

    frames: UInt8[np.ndarray, "t h w 3"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and 3."""
        height, width, channels = self.frames.shape[1:]
        return height, width, channels

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        return np.asarray(self.frames[index])

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return iter(self.frames)


@dataclass(frozen=True, kw_only=True, eq=False)
class TableFrames:
    """Pictures of one episode in a table: a column of {bytes, path}.

    Args:
        table: The parquet file.
        key: The column.
        first: First row.
        count: Number of rows.
        shape: Height, width and 3 as declared.
        root: Folder of the data set, for pictures that lie beside the table.
    """

    table: Path
    key: str
    first: int
    count: int
    shape: tuple[int, int, int]
    root: Path
    _files: list[bytes] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        where = f"{self.table}: {self.key}, row {self.first + index}"
        return check_shape(decode_picture(self._encoded()[index], where=where), self.shape, where=where)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return (self[index] for index in range(self.count))

    def _encoded(self) -> Sequence[bytes]:
        """The episode's files, read once."""
        if not self._files:
            self._files.extend(self._read())
        return self._files

    def _read(self) -> list[bytes]:
        from polydit.robopolicy.data.tables import open_table, read_columns

        with open_table(self.table) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        groups = [
            i for i in range(len(sizes)) if starts[i] < self.first + self.count and starts[i + 1] > self.first
        ]
        column = read_columns(self.table, [self.key], groups)[self.key]
        rows = column.slice(self.first - int(starts[groups[0]]), self.count).to_pylist()
        return [self._content(row, self.first + offset) for offset, row in enumerate(rows)]

    def _content(self, row: object, number: int) -> bytes:
        """The bytes of a row, or of the file that it names."""
        from polydit.robopolicy.data.info import read_beside

        where = f"{self.table}: {self.key}, row {number}"
        if isinstance(row, dict) and isinstance(row.get("bytes"), bytes):
            return bytes(row["bytes"])
        if isinstance(row, dict) and row.get("path"):
            return read_beside(self.root, str(row["path"]), where=where)
        raise InputError("a picture is missing", where=where)
