"""What is drawn of a stain: a map of its DAB, the outline of a mask over it, and both as elements of a page."""

from __future__ import annotations

from io import BytesIO
from typing import Final

import numpy as np
from jaxtyping import Bool, UInt8

from polydit.core.report import inline_image
from polydit.core.report.markup import Markup
from polydit.vstain.colour import OPTICAL_DENSITY, dab

DARKEST: Final = 1.2
"""Optical density, to the base 10, that the map shows in its last colour."""

_STOPS = np.array([(255, 255, 255), (253, 224, 150), (240, 140, 60), (190, 50, 50), (70, 10, 50)], np.float64)
_OUTLINE = (20, 230, 60)  # neither blue nor brown
_QUALITY = 88


def dab_map(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The optical density of DAB as a heat map, from white (0) to dark red (`DARKEST` or more).

    Args:
        image: A DAB stain, sRGB.
    """
    level = np.minimum(dab(image) * (OPTICAL_DENSITY / DARKEST * 255), 255).astype(np.uint8)
    at = np.linspace(0, 255, len(_STOPS))
    ramp = np.stack([np.interp(np.arange(256), at, _STOPS[:, k]) for k in range(3)], axis=1)
    return ramp.round().astype(np.uint8)[level]


def outlined(image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """An image with the outline of a mask drawn over it.

    Args:
        image: sRGB.
        mask: Of its size.
    """
    from scipy import ndimage

    drawn = image.copy()
    drawn[mask & ~ndimage.binary_erosion(mask, border_value=1)] = _OUTLINE
    return drawn


def element(image: UInt8[np.ndarray, "h w 3"], *, label: str) -> Markup:
    """An image as an element of a page, a tenth of the size of a PNG.

    Args:
        image: sRGB.
        label: What it shows, for those who cannot see it.
    """
    from PIL import Image

    handle = BytesIO()
    Image.fromarray(image).save(handle, "JPEG", quality=_QUALITY, subsampling=0)
    return inline_image(handle.getvalue(), label=label)
