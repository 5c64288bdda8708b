"""How alike two images are: MSE, PSNR, SSIM, and the distance of their colours."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from jaxtyping import UInt8

SSIM_METHOD: Final = "Gaussian window, sigma 1.5, over R, G and B; range 255 (Wang et al. 2004)"
SMALLEST: Final = 11
"""Pixels of a side that the window of SSIM needs."""
MOST_PSNR: Final = 100.0
"""Decibels of two equal images; one grey level in one pixel of a tile of 256 gives 101."""


def mean_squared_error(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> float:
    """Of all values of all channels, in squared grey levels."""
    difference = a.astype(np.float64) - b
    return float(np.mean(difference * difference))


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio of 8-bit images in dB, at most `MOST_PSNR`.

    Args:
        mse: Their mean squared error.
    """
    return min(10.0 * math.log10(255.0**2 / mse), MOST_PSNR) if mse > 0 else MOST_PSNR


def ssim(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> float:
    """Structural similarity as `SSIM_METHOD` says; NaN where a side is below `SMALLEST`."""
    from skimage.metrics import structural_similarity

    if min(a.shape[:2]) < SMALLEST:
        return math.nan
    return float(
        structural_similarity(
            a,
            b,
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def colour_distance(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"]) -> float:
    """Earth mover's distance of the histograms of each channel, in grey levels, mean over R, G and B.

    It looks at how much of each value there is, not where, so it says something of pairs that are not aligned.
    """
    return float(
        np.mean([np.abs(_shares_up_to(a[..., k]) - _shares_up_to(b[..., k])).sum() for k in range(3)])
    )


def _shares_up_to(channel: UInt8[np.ndarray, "h w"]) -> np.ndarray:
    """The share of pixels up to each of the 256 values."""
    return np.cumsum(np.bincount(channel.ravel(), minlength=256)) / channel.size
