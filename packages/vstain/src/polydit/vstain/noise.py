"""Noise that belongs to a place on the slide, not to the tile that happens to cover it.

Two tiles that overlap start from the same numbers where they do, so that what they make agrees; and any window can be
drawn at any time, on any machine, in any order.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

IMAGE_CHANNELS, MASK_CHANNELS = 3, 1
CHANNELS = IMAGE_CHANNELS + MASK_CHANNELS  # of the noise that a tile starts from
BLOCK = 64  # pixels of a side that are drawn together


def noise_field(
    seed: int, x: int, y: int, width: int, height: int, channels: int
) -> Float32[np.ndarray, "c h w"]:
    """A window of an endless field of independent normal numbers.

    Each block of the plane has a counter-based generator of its own (Philox, Salmon et al. 2011), keyed by the seed and
    the block's place.

    Args:
        seed: Of the field, 0..2⁶³-1.
        x: Left edge of the window; it may be negative.
        y: Its upper edge.
        width: Its columns.
        height: Its rows.
        channels: Of each pixel.
    """
    field = np.empty((channels, height, width), np.float32)
    for row in range(y // BLOCK, -(-(y + height) // BLOCK)):
        for column in range(x // BLOCK, -(-(x + width) // BLOCK)):
            top, left = row * BLOCK - y, column * BLOCK - x
            rows = slice(max(top, 0), min(top + BLOCK, height))
            columns = slice(max(left, 0), min(left + BLOCK, width))
            block = _block(seed, row, column, channels)
            field[:, rows, columns] = block[
                :, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
            ]
    return field


def _block(seed: int, row: int, column: int, channels: int) -> Float32[np.ndarray, "c 64 64"]:
    place = (row % 2**32) << 32 | column % 2**32
    # as bytes of 64 bits: a list of such numbers would be rounded to floats
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, place], np.uint64)))
    return generator.standard_normal((channels, BLOCK, BLOCK), np.float32)
