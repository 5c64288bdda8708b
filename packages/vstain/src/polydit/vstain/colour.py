"""How much DAB a pixel carries, and which pixels are positive."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, UInt8

OPTICAL_DENSITY: Final = 6.0
"""Times a DAB value of this module: optical density to the base 10."""

POSITIVE: Final = 0.07
"""DAB value above which a pixel is positive: an optical density of 0.42 (Kataria et al., coarse labels of CD3)."""

REACH: Final = 6
"""Pixels round a place that `coarse_mask` looks at."""


def dab(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """The amount of DAB by colour deconvolution (Ruifrok & Johnston 2001), 0 or more.

    The third channel of `skimage.color.rgb2hed`, in its units: a sixth of the optical density to the base 10.

    Args:
        image: sRGB.
    """
    tables = _dab_tables()
    amount = tables[0][image[..., 0]]
    amount += tables[1][image[..., 1]]
    amount += tables[2][image[..., 2]]
    return np.maximum(amount, np.float32(0), out=amount)


def coarse_mask(ihc: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where an immunohistochemical stain is positive: `positive_region` of its DAB above `POSITIVE`.

    Args:
        ihc: A DAB stain, sRGB.
    """
    return positive_region(dab(ihc) > POSITIVE)


def positive_region(above: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Positive pixels made whole: closed by 3 x 3 twice, then the median of 5 x 5.

    The image goes on beyond its edges as it ends there.

    Args:
        above: True where a pixel by itself is positive.
    """
    from scipy import ndimage

    square = np.ones((3, 3), bool)
    grown = ndimage.binary_dilation(above, square, iterations=2)
    closed = ndimage.binary_erosion(grown, square, iterations=2, border_value=1)
    # the median of a binary image is what more than half of the pixels are
    share = ndimage.uniform_filter(closed.astype(np.float32), size=5, mode="nearest")
    return share > 0.5


@lru_cache(maxsize=1)
def _dab_tables() -> Float32[np.ndarray, "3 256"]:
    """What each value of red, green and blue adds to the DAB amount."""
    from skimage.color import hed_from_rgb

    light = np.maximum(np.arange(256) / 255.0, 1e-6)
    density = np.log(light) / np.log(1e-6)
    return (hed_from_rgb[:, 2, None] * density).astype(np.float32)
