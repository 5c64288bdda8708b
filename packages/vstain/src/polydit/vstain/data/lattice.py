"""Random numbers and smooth noise that belong to places of an endless plane, whatever window is looked at."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int, UInt64

_ODD = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9))
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def place_uniform(
    seed: int, rows: Int[np.ndarray, " r"], columns: Int[np.ndarray, " c"], channel: int
) -> Float32[np.ndarray, "r c"]:
    """Independent numbers in [0, 1), one for each place (row, column) of a lattice.

    Args:
        seed: Of the plane.
        rows: Rows of the lattice; they may be negative.
        columns: Its columns.
        channel: Tells several numbers of one place apart.
    """
    with np.errstate(over="ignore"):  # hashes wrap around
        start = np.uint64(seed % 2**64) * _ODD[0] + np.uint64(channel + 1) * _ODD[1]
        by_row = _mixed(rows.astype(np.int64).astype(np.uint64) * _ODD[2] + start)
        mixed = _mixed(by_row[:, None] + columns.astype(np.int64).astype(np.uint64)[None, :] * _ODD[0])
    return ((mixed >> np.uint64(40)).astype(np.float32)) / np.float32(2**24)


def _mixed(bits: UInt64[np.ndarray, "*places"]) -> UInt64[np.ndarray, "*places"]:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the input moves half of the output's."""
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX[0]
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX[1]
    return bits ^ (bits >> np.uint64(31))


def smooth_noise(
    seed: int, x: int, y: int, width: int, height: int, *, scale: float, channel: int
) -> Float32[np.ndarray, "h w"]:
    """Value noise in [0, 1): random numbers on a lattice, blended smoothly between its places (Perlin 1985).

    Args:
        seed: Of the plane.
        x: Left edge of the window in pixels.
        y: Its upper edge.
        width: Its columns.
        height: Its rows.
        scale: Pixels between the places of the lattice.
        channel: Tells several fields of one plane apart.
    """
    rows, down = _blend(np.arange(y, y + height), scale)
    columns, across = _blend(np.arange(x, x + width), scale)
    return down @ place_uniform(seed, rows, columns, channel) @ across.T


def noise_samples(
    seed: int, at: Int[np.ndarray, " n"], *, scale: float, channel: int
) -> Float32[np.ndarray, "n n"]:
    """`smooth_noise` at the pixels where the rows `at` cross the columns `at`, which may lie far apart."""
    places, shares = _blend(at, scale)
    down = shares @ place_uniform(seed, places, places, channel)
    first = np.argmax(shares > 0, axis=1)  # of the two places that a pixel lies between
    second = np.minimum(first + 1, len(places) - 1)
    pixel = np.arange(len(at))
    return down[:, first] * shares[pixel, first] + down[:, second] * shares[pixel, second]


def noise_at(
    seed: int, x: Float32[np.ndarray, "r c"], y: Float32[np.ndarray, "r c"], *, scale: float, channel: int
) -> Float32[np.ndarray, "r c"]:
    """`smooth_noise` at scattered points, to the nearest pixel; the points lie close together."""
    column, row = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    left, top = int(column.min()), int(row.min())
    width, height = int(column.max()) - left + 1, int(row.max()) - top + 1
    field = smooth_noise(seed, left, top, width, height, scale=scale, channel=channel)
    return field[row - top, column - left]


def _blend(
    pixels: Int[np.ndarray, " n"], scale: float
) -> tuple[Int[np.ndarray, " k"], Float32[np.ndarray, "n k"]]:
    """Lattice places that ascending pixels lie between, and the share of each place in each pixel."""
    at = (pixels + 0.5) / scale
    first = np.floor(at).astype(np.int64)
    places = np.arange(first[0], first[-1] + 2)
    part = (at - first).astype(np.float32)
    part = part * part * (3.0 - 2.0 * part)
    shares = np.zeros((len(pixels), len(places)), np.float32)
    row = np.arange(len(pixels))
    shares[row, first - places[0]] = 1.0 - part
    shares[row, first - places[0] + 1] += part
    return places, shares
