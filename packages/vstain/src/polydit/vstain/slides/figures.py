"""What a stained slide or image amounts to: positive area, integrated optical density, positive objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from polydit.vstain.colour import OPTICAL_DENSITY, REACH, dab, positive_region
from polydit.vstain.colour import POSITIVE as POSITIVE_DAB
from polydit.vstain.slides.grid import Box
from polydit.vstain.slides.staining import StainedSlide


@dataclass(slots=True)
class StainAmounts:
    """Sums over the pixels of a stain; parts of a slide are added one by one.

    Args:
        pixels: That were looked at.
        positive: Of them, positive by their DAB.
        density: Sum of the positive pixels' optical density, to the base 10.
        masked: Pixels of the mask.
    """

    pixels: int = 0
    positive: int = 0
    density: float = 0.0
    masked: int = 0

    def add(
        self,
        stain: UInt8[np.ndarray, "h w 3"],
        mask: Bool[np.ndarray, "r c"] | None,
        inner: tuple[slice, slice] = (slice(None), slice(None)),
    ) -> None:
        """Adds a part.

        Args:
            stain: The part, with some of its surroundings.
            mask: Its mask without them; None = not made.
            inner: Rows and columns of the part itself.
        """
        amount = dab(stain)
        positive = positive_region(amount > POSITIVE_DAB)[inner]
        self.pixels += positive.size
        self.positive += int(positive.sum())
        self.density += OPTICAL_DENSITY * float(amount[inner][positive].sum(dtype=np.float64))
        if mask is not None:
            self.masked += int(mask.sum())

    def to_json(self, *, masked: bool) -> dict[str, Any]:
        """For the figures file and the manifest.

        Args:
            masked: Whether a mask was made.
        """
        area = 100 * self.positive / self.pixels if self.pixels else 0.0
        mask = {"mask_area_percent": 100 * self.masked / self.pixels if self.pixels else 0.0}
        return {
            "positive_area_percent": area,
            "iod": self.density,
            "mean_od": self.density / self.positive if self.positive else 0.0,
            **(mask if masked else {}),
        }


def slide_amounts(stained: StainedSlide) -> StainAmounts:
    """Over the tiles that were stained, core by core; nothing is counted twice."""
    amounts = StainAmounts()
    for tile in stained.plan.grid:
        if stained.wanted[tile.number]:
            around, inner = _around(tile.core, stained.plan.grid.width, stained.plan.grid.height)
            mask = None if stained.mask is None else stained.mask.window(*tile.core)[..., 0] > 127
            amounts.add(stained.stain.window(*around), mask, inner)
    return amounts


def _around(core: Box, width: int, height: int) -> tuple[Box, tuple[slice, slice]]:
    """A core with what decides whether its pixels are positive, and where it lies therein."""
    left, top = max(core.x - REACH, 0), max(core.y - REACH, 0)
    right, bottom = min(core.x + core.width + REACH, width), min(core.y + core.height + REACH, height)
    rows = slice(core.y - top, core.y - top + core.height)
    columns = slice(core.x - left, core.x - left + core.width)
    return Box(left, top, right - left, bottom - top), (rows, columns)
