"""Pictures of any size to the squares that a network sees."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

PADDING = 127  # the grey that RDT puts around pictures that are not square


def to_squares(pictures: UInt8[np.ndarray, "n h w 3"], size: int) -> Float[Tensor, "n 3 size size"]:
    """Pad to squares with grey, scale with antialiasing, to [0, 1].

    Args:
        pictures: RGB.
        size: Side of the result in pixels.
    """
    frames = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    height, width = frames.shape[2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    frames = F.pad(frames, (left, side - width - left, top, side - height - top), value=float(PADDING))
    if side != size:
        frames = F.interpolate(frames, size=(size, size), mode="bilinear", antialias=True)
    return frames.clamp(0.0, 255.0) / 255.0
