"""How much DAB an image carries, and how two series of numbers go together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32

from polydit.vstain.colour import OPTICAL_DENSITY


@dataclass(frozen=True, slots=True)
class Amount:
    """The DAB of one image.

    Args:
        iod: Integrated optical density: the sum over positive pixels, to the base 10.
        positive: How many pixels are positive.
        pixels: How many there are.
    """

    iod: float
    positive: int
    pixels: int

    @classmethod
    def of(cls, dab: Float32[np.ndarray, "h w"], region: Bool[np.ndarray, "h w"]) -> Amount:
        """By summing.

        Args:
            dab: What `polydit.vstain.colour.dab` gives.
            region: Which pixels are positive, as `polydit.vstain.colour.positive_region` has them.
        """
        positive = dab[region]
        return cls(OPTICAL_DENSITY * float(positive.sum(dtype=np.float64)), len(positive), dab.size)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of two series of numbers; NaN where one of them does not vary, or is shorter than two."""
    if x.size < 2:
        return float("nan")
    p, q = (values.astype(np.float64) - values.mean(dtype=np.float64) for values in (x.ravel(), y.ravel()))
    size = np.sqrt(p @ p) * np.sqrt(q @ q)
    # a constant series leaves a remainder of rounding
    smallest = 1e-12 * p.size * max(1.0, float(np.abs(x).max())) * max(1.0, float(np.abs(y).max()))
    return float(p @ q / size) if size > smallest else float("nan")
