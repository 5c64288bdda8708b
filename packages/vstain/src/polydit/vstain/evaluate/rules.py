"""Which figures there are, and how each follows from the tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float64

from polydit.vstain.colour import POSITIVE
from polydit.vstain.evaluate.amounts import pearson
from polydit.vstain.evaluate.images import MOST_PSNR, SSIM_METHOD
from polydit.vstain.evaluate.masks import dice, iou
from polydit.vstain.evaluate.nuclei import METHOD as NUCLEI_METHOD


class Rule(NamedTuple):
    """How one figure follows from the tiles.

    Args:
        name: Unique among the figures.
        unit: What the value is a number of; "" = nothing.
        method: The rule, in words.
        needs: Fields of `TileScores`; tiles where one of them is not a number do not count.
        of: The value from these fields of all tiles; NaN = there is none.
    """

    name: str
    unit: str
    method: str
    needs: tuple[str, ...]
    of: Callable[..., float]


def _pooled(measure: Callable[[float, float, float], float]) -> Callable[..., float]:
    return lambda both, extra, missed: measure(float(both.sum()), float(extra.sum()), float(missed.sum()))


def _ratio(above: Float64[np.ndarray, " n"], below: Float64[np.ndarray, " n"]) -> float:
    total = float(below.sum())
    return float(above.sum()) / total if total else float("nan")


def _share(part: Float64[np.ndarray, " n"], other: Float64[np.ndarray, " n"]) -> float:
    """Of the part in the two together."""
    return _ratio(part, part + other)


def _percent(part: Float64[np.ndarray, " n"], whole: Float64[np.ndarray, " n"]) -> float:
    return 100.0 * _ratio(part, whole)


def _count_error(ours: Float64[np.ndarray, " n"], real: Float64[np.ndarray, " n"]) -> float:
    return 100.0 * _ratio(np.abs(ours - real), real)


_DAB = f"DAB by rgb2hed, positive above {POSITIVE} (closed 3 x 3 twice, median 5 x 5), OD to the base 10"
_MASKS = ("both", "extra", "missed")
_AREA = ("positive", "pixels")
_PER_TILE = "mean over tiles"

RULES: Final = (
    Rule("SSIM", "", f"{_PER_TILE}; {SSIM_METHOD}", ("ssim",), np.mean),
    Rule("PSNR", "dB", f"{_PER_TILE}, at most {MOST_PSNR:g} of equal images; range 255", ("psnr",), np.mean),
    Rule("MSE", "grey levels²", f"{_PER_TILE}, over R, G and B", ("mse",), np.mean),
    Rule(
        "colour distance", "grey levels",
        f"{_PER_TILE}; earth mover's distance of the histograms of each channel, mean over R, G and B",
        ("colour",), np.mean,
    ),
    Rule("DAB r", "", f"Pearson correlation over the tiles of the integrated optical density; {_DAB}",
          ("iod", "iod_reference"), pearson),
    Rule("DAB pixel r", "", f"Pearson correlation over the pixels of a tile, {_PER_TILE} where both vary; {_DAB}",
          ("dab_r",), np.mean),
    Rule("IOD", "OD × pixels", f"integrated optical density of the virtual stain, {_PER_TILE}; {_DAB}",
          ("iod",), np.mean),
    Rule("IOD of the reference", "OD × pixels", f"{_PER_TILE}; {_DAB}", ("iod_reference",), np.mean),
    Rule("mean OD", "OD", f"of the positive pixels of the virtual stain, all tiles together; {_DAB}",
          ("iod", "positive"), _ratio),
    Rule("mean OD of the reference", "OD", f"of its positive pixels, all tiles together; {_DAB}",
          ("iod_reference", "positive_reference"), _ratio),
    Rule("positive area", "%", f"of the virtual stain, all tiles together; {_DAB}", _AREA, _percent),
    Rule("positive area of the reference", "%", f"all tiles together; {_DAB}",
          ("positive_reference", "pixels"), _percent),
    Rule("positive area error", "points", f"|virtual - reference|, {_PER_TILE}; {_DAB}", ("area_error",),
          lambda error: 100.0 * float(np.mean(error))),
    Rule("Dice", "", "of the masks, all tiles pooled: the F1 score of the pixels", _MASKS, _pooled(dice)),
    Rule("IoU", "", "of the masks, all tiles pooled", _MASKS, _pooled(iou)),
    Rule("precision", "", "share of the virtual mask that is positive, all tiles pooled",
          ("both", "extra"), _share),
    Rule("recall", "", "share of the positive pixels that the virtual mask finds, all tiles pooled",
          ("both", "missed"), _share),
    Rule("DAB Dice", "", "of the regions derived from both stains by their DAB (not of the masks), all tiles pooled",
         ("dab_both", "dab_extra", "dab_missed"), _pooled(dice)),
    Rule("Dice per tile", "", f"{_PER_TILE}; 1 where both masks are empty", ("dice",), np.mean),
    Rule("Dice of positive tiles", "", f"{_PER_TILE} whose reference has a positive pixel",
          ("dice_of_positive",), np.mean),
    Rule("IoU per tile", "", f"{_PER_TILE}; 1 where both masks are empty", ("iou",), np.mean),
    Rule("HD95", "pixels", "95th percentile of the distances between the outlines within a tile, both directions "
          f"together, {_PER_TILE} where neither mask is empty", ("hd95",), np.mean),
    Rule("nuclei r", "", f"Pearson correlation over the tiles of their number; {NUCLEI_METHOD}",
          ("nuclei", "nuclei_reference"), pearson),
    Rule("nuclei error", "%", f"sum over tiles of |virtual - reference|, of the sum of the reference; {NUCLEI_METHOD}",
          ("nuclei", "nuclei_reference"), _count_error),
)  # fmt: skip
