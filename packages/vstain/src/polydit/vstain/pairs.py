"""A pair of images of one tissue: what the adapters give and the training takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StainPair:
    """An H&E image and the same place in an immunohistochemical stain.

    Args:
        id: Its name in the data set.
        he: Haematoxylin and eosin, sRGB.
        ihc: The stain with its counterstain, sRGB.
        mask: True where cells are positive, coarse; None = not known.
        stain: Name of the marker in lower case, such as "ck" or "cd3".
        mpp: Microns per pixel; None = not known.
    """

    id: str
    he: UInt8[np.ndarray, "h w 3"]
    ihc: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"] | None
    stain: str
    mpp: float | None
