"""A fluorescence image as the brightfield stain that shows the same."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

_WHITE = 245.0
# natural optical densities where a channel is saturated; `colour.POSITIVE` is then at 37 % of the marker's range
_COUNTERSTAIN, _CHROMOGEN = 0.8, 2.6
# optical densities (R, G, B) of haematoxylin and DAB: Ruifrok & Johnston 2001, normalised
_COLOURS = np.array([(0.65, 0.70, 0.29), (0.27, 0.57, 0.78)])
_COLOURS = (_COLOURS / np.linalg.norm(_COLOURS, axis=1, keepdims=True)).astype(np.float32)


def brightfield(
    nuclei: UInt8[np.ndarray, "h w"], marker: UInt8[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Absorption where there was emission: nuclei in haematoxylin, the marker in DAB (Giacomelli et al. 2016).

    The amounts are proportional to the intensities, so densities can be compared within a data set, and say nothing of
    what a laboratory's chromogen would have shown.

    Args:
        nuclei: Intensity of the nuclear dye, such as DAPI.
        marker: Intensity of the marker.
    """
    amounts = np.stack([_COUNTERSTAIN * nuclei, _CHROMOGEN * marker], axis=-1).astype(
        np.float32
    ) / np.float32(255)
    return np.rint(_WHITE * np.exp(-(amounts @ _COLOURS))).astype(np.uint8)
