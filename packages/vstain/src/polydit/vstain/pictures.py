"""Pictures as tensors, and the units that the stain is learnt in. Constants of the data set, never of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def from_image(image: UInt8[Tensor, "b h w c"]) -> Float[Tensor, "b c h w"]:
    """Bytes to [-1, 1]."""
    return image.permute(0, 3, 1, 2).float().div(127.5).sub(1.0)


def to_image(picture: Float[Tensor, "b c h w"]) -> UInt8[Tensor, "b h w c"]:
    """[-1, 1] to bytes; what lies outside becomes black or full light."""
    return picture.add(1.0).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Normalisation:
    """Mean and deviation of the stain in [-1, 1].

    A stained slide is nearly white, so that its pictures vary little; in these units they have deviation 1, and the
    noise schedule means what it means elsewhere.

    Args:
        mean: Of each channel.
        scale: The deviation of all channels together.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0

    @classmethod
    def of(cls, images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> Normalisation:
        """Of a sample of the data set."""
        pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 127.5 - 1.0
        red, green, blue = (round(float(value), 4) for value in pixels.mean(0))
        deviation = float(np.sqrt((pixels - pixels.mean(0)).var()))
        return cls((red, green, blue), round(max(deviation, 0.01), 4))

    def normalise(self, picture: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """From [-1, 1]."""
        return (picture - self._mean(picture)) / self.scale

    def denormalise(self, picture: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """To [-1, 1]."""
        return picture * self.scale + self._mean(picture)

    def _mean(self, like: Tensor) -> Tensor:
        return torch.tensor(self.mean, dtype=like.dtype, device=like.device)[:, None, None]
