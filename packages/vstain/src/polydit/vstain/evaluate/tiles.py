"""Everything that is measured of one tile of virtual stain against the real one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from polydit.vstain.colour import POSITIVE, dab, positive_region
from polydit.vstain.evaluate.amounts import Amount, pearson
from polydit.vstain.evaluate.images import colour_distance, mean_squared_error, psnr, ssim
from polydit.vstain.evaluate.masks import Overlap, dice, hausdorff_95, iou
from polydit.vstain.evaluate.nuclei import count_nuclei

_PALE: Final = 30  # grey levels between the channels of a pixel of glass at most
_SPECKS: Final = 0.01  # share of other pixels that glass may show


@dataclass(frozen=True, slots=True, kw_only=True)
class TileScores:
    """One tile against its reference; the second of two numbers is always the reference's.

    Attributes:
        item: Name of the reference, an image or a slide.
        x: Left edge of the tile in it.
        y: Its upper edge.
        psnr: In dB.
        ssim: NaN where the tile is too small.
        mse: In squared grey levels.
        colour: Distance of the colour histograms in grey levels.
        iod: Integrated optical density.
        iod_reference: Of the reference.
        positive: Pixels that are positive by their DAB.
        positive_reference: Of the reference.
        pixels: All of the tile.
        dab_r: Correlation of the DAB amounts pixel by pixel; NaN where one does not vary.
        both: Pixels of both masks.
        extra: Of the virtual mask alone.
        missed: Of the reference's alone.
        dab_both: Pixels that are positive by their DAB in both.
        dab_extra: In the virtual stain alone.
        dab_missed: In the reference alone.
        hd95: Distance of the outlines in pixels; NaN where a mask is empty.
        nuclei: How many.
        nuclei_reference: Of the reference.
    """

    item: str
    x: int
    y: int
    psnr: float
    ssim: float
    mse: float
    colour: float
    iod: float
    iod_reference: float
    positive: int
    positive_reference: int
    pixels: int
    dab_r: float
    both: int
    extra: int
    missed: int
    dab_both: int
    dab_extra: int
    dab_missed: int
    hd95: float
    nuclei: int
    nuclei_reference: int

    @property
    def dice(self) -> float:
        """Of the masks; 1 where both are empty."""
        return dice(self.both, self.extra, self.missed)

    @property
    def dice_of_positive(self) -> float:
        """The same, but NaN where the reference has no positive pixel."""
        return self.dice if self.both + self.missed else math.nan

    @property
    def iou(self) -> float:
        """Of the masks; 1 where both are empty."""
        return iou(self.both, self.extra, self.missed)

    @property
    def area_error(self) -> float:
        """How far the share of positive pixels is off, 0..1."""
        return abs(self.positive - self.positive_reference) / self.pixels

    def row(self) -> dict[str, str | int | float]:
        """As a line of tiles.csv."""
        return {**asdict(self), "dice": self.dice, "iou": self.iou}


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """An image and its mask.

    Args:
        image: sRGB.
        mask: True where it is positive; None derives it from the DAB, as
            `polydit.vstain.colour.coarse_mask` does.
    """

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"] | None = None

    @property
    def is_glass(self) -> bool:
        """There is nothing on it."""
        coloured = np.ptp(self.image, axis=2) > _PALE
        return bool(coloured.mean() < _SPECKS)


def score_tile(virtual: Tile, reference: Tile, *, item: str, x: int = 0, y: int = 0) -> TileScores:
    """Measures one tile.

    Args:
        virtual: What the model made.
        reference: The real stain of the same place, of the same size.
        item: Name of the reference, an image or a slide.
        x: Left edge of the tile in it.
        y: Its upper edge.
    """
    ours, real = dab(virtual.image), dab(reference.image)
    positive, expected = (positive_region(amounts > POSITIVE) for amounts in (ours, real))
    mask = positive if virtual.mask is None else virtual.mask
    truth = expected if reference.mask is None else reference.mask
    overlap, by_dab = Overlap.of(mask, truth), Overlap.of(positive, expected)
    amount, amount_reference = Amount.of(ours, positive), Amount.of(real, expected)
    mse = mean_squared_error(virtual.image, reference.image)
    return TileScores(
        item=item,
        x=x,
        y=y,
        psnr=psnr(mse),
        ssim=ssim(virtual.image, reference.image),
        mse=mse,
        colour=colour_distance(virtual.image, reference.image),
        iod=amount.iod,
        iod_reference=amount_reference.iod,
        positive=amount.positive,
        positive_reference=amount_reference.positive,
        pixels=amount.pixels,
        dab_r=pearson(ours, real),
        both=overlap.both,
        extra=overlap.extra,
        missed=overlap.missed,
        dab_both=by_dab.both,
        dab_extra=by_dab.extra,
        dab_missed=by_dab.missed,
        hd95=hausdorff_95(mask, truth),
        nuclei=count_nuclei(virtual.image),
        nuclei_reference=count_nuclei(reference.image),
    )


def column(tiles: Sequence[TileScores], name: str) -> Float64[np.ndarray, " tiles"]:
    """One number of every tile, in double precision.

    Args:
        tiles: In their order.
        name: Of a field or a property of `TileScores`.
    """
    return np.array([getattr(tile, name) for tile in tiles], np.float64)
