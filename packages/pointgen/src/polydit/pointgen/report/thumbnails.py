"""Small still pictures of clouds: points sorted by depth, painted from the back, as a PNG of few colours."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, UInt8

from polydit.core.report.markup import Markup, tag


def _view(azimuth: float, elevation: float) -> Float[np.ndarray, "3 3"]:
    """Rows: to the right, up and to the viewer, who stands so many degrees beside the front (-z) and above."""
    beside, above = np.deg2rad([azimuth, elevation])
    eye = np.array([np.sin(beside) * np.cos(above), np.sin(above), -np.cos(beside) * np.cos(above)])
    right = np.cross([0.0, 1.0, 0.0], eye)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(eye, right), eye])


VIEW: Final = _view(50.0, 22.0)
_LEVELS: Final = 6  # of brightness, from the back to the front
_DIMMEST: Final = 0.5
_MOST_COLOURS: Final = 255 // _LEVELS
_FINER: Final = 2  # drawn so many times larger than shown


def thumbnail(
    points: Float[np.ndarray, "n 3"],
    colours: UInt8[np.ndarray, " n"],
    palette: Sequence[str],
    *,
    size: int = 112,
) -> bytes:
    """A PNG file with a transparent ground.

    Args:
        points: The cloud.
        colours: Place of each point's colour in the palette.
        palette: Colours as "#rrggbb"; of more than 42 only every other (third, ...) is used.
        size: Pixels per side as it is shown; the file has twice as many.
    """
    stride = -(-len(palette) // _MOST_COLOURS)
    few = list(palette)[::stride]
    side = size * _FINER
    picture = np.zeros((side, side), dtype=np.uint8)
    if len(points):
        rows, columns, depth = _projected(points, side)
        level = np.minimum((depth * _LEVELS).astype(np.intp), _LEVELS - 1)
        shade = 1 + (colours // stride) * _LEVELS + level
        _paint(picture, rows, columns, depth, shade.astype(np.uint8), _radius(len(points), side))
    return _png(picture, [(0, 0, 0), *(_dimmed(colour, k) for colour in few for k in range(_LEVELS))])


def inline(png: bytes, *, label: str, size: int = 112) -> Markup:
    """The picture as an element of a page."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return tag("img", src=source, alt=label, width=size, height=size)


def _projected(
    points: Float[np.ndarray, "n 3"], side: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Rows and columns in pixels, and depth from 0 (back) to 1."""
    centred = points - (points.min(0) + points.max(0)) / 2
    seen = centred.astype(np.float64) @ VIEW.T
    reach = max(float(np.abs(seen[:, :2]).max()), 1e-12)
    across, up = (0.46 * side * seen[:, k] / reach for k in (0, 1))
    depth = seen[:, 2] - seen[:, 2].min()
    return side / 2 - up, side / 2 + across, depth / max(float(depth.max()), 1e-12)


def _radius(count: int, side: int) -> float:
    """Of a point in pixels, so that a surface looks closed."""
    return max(1.0, 0.42 * side / math.sqrt(count + 64))


def _paint(
    picture: UInt8[np.ndarray, "s s"],
    rows: Float[np.ndarray, " n"],
    columns: Float[np.ndarray, " n"],
    depth: Float[np.ndarray, " n"],
    shade: UInt8[np.ndarray, " n"],
    radius: float,
) -> None:
    reach = int(np.ceil(radius))
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    offsets = offsets[:, np.hypot(*offsets) <= radius]
    order = np.argsort(depth, kind="stable")
    at = [
        np.clip(np.rint(place[order, None] + offset), 0, len(picture) - 1).astype(np.intp)
        for place, offset in zip((rows, columns), offsets, strict=True)
    ]
    # of an index that occurs several times numpy keeps the last value: the nearest point
    picture[at[0].ravel(), at[1].ravel()] = np.repeat(shade[order], offsets.shape[1])


def _dimmed(colour: str, level: int) -> tuple[int, int, int]:
    share = _DIMMEST + (1.0 - _DIMMEST) * level / (_LEVELS - 1)
    red, green, blue = (round(share * int(colour[k : k + 2], 16)) for k in (1, 3, 5))
    return red, green, blue


def _png(picture: UInt8[np.ndarray, "h w"], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """An indexed PNG (PNG specification, 11.2); colour 0 is transparent."""
    height, width = picture.shape
    lines = b"".join(b"\0" + row.tobytes() for row in picture)
    return b"\x89PNG\r\n\x1a\n" + b"".join([
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _chunk(b"PLTE", bytes(value for colour in palette for value in colour)),
        _chunk(b"tRNS", b"\0"),
        _chunk(b"IDAT", zlib.compress(lines, 9)),
        _chunk(b"IEND", b""),
    ])  # fmt: skip


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
