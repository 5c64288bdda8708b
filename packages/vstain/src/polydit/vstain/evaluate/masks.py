"""How well two masks agree: counts of pixels, Dice, IoU, and the distance of their outlines."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels of a mask against those of its reference.

    Args:
        both: Positive in both.
        extra: Positive in the mask alone.
        missed: Positive in the reference alone.
    """

    both: int
    extra: int
    missed: int

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "h w"], reference: Bool[np.ndarray, "h w"]) -> Overlap:
        """By counting."""
        both = int(np.count_nonzero(mask & reference))
        return cls(both, int(np.count_nonzero(mask)) - both, int(np.count_nonzero(reference)) - both)


def dice(both: int | float, extra: int | float, missed: int | float) -> float:
    """Dice coefficient, which is the F1 score of the pixels: 2 TP / (2 TP + FP + FN); 1 where both masks are empty."""
    return float(2.0 * both / (2.0 * both + extra + missed)) if both + extra + missed else 1.0


def iou(both: int | float, extra: int | float, missed: int | float) -> float:
    """Intersection over union: TP / (TP + FP + FN); 1 where both masks are empty."""
    return float(both / (both + extra + missed)) if both + extra + missed else 1.0


def hausdorff_95(mask: Bool[np.ndarray, "h w"], reference: Bool[np.ndarray, "h w"]) -> float:
    """95th percentile of the distances between two outlines in pixels, those of both directions together.

    Args:
        mask: One region.
        reference: The other.

    Returns:
        NaN where either is empty, since there is no outline to be far from.
    """
    if not mask.any() or not reference.any():
        return math.nan
    outlines = [_outline(region) for region in (mask, reference)]
    there, back = _distances(outlines[0], outlines[1]), _distances(outlines[1], outlines[0])
    return float(np.percentile(np.concatenate([there, back]), 95))


def _outline(region: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of a region that touch what is outside of it; the image's edge is outside."""
    from scipy import ndimage

    return region & ~ndimage.binary_erosion(region)


def _distances(places: Bool[np.ndarray, "h w"], to: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, " n"]:
    """From each place to the nearest of the others."""
    from scipy import ndimage

    distances: Float64[np.ndarray, " n"] = ndimage.distance_transform_edt(~to)[places]
    return distances
