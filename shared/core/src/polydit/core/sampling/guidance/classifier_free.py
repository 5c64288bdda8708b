"""Classifier-free guidance in one batch (Ho & Salimans 2022). Shapes: b items, c channels."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.errors import InputError


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """unconditional + scale · (conditional - unconditional). Scale 1 is no guidance, 0 is unconditional.

    Raises:
        InputError: The scale is infinite or no number.
    """
    if not math.isfinite(scale):
        raise InputError(f"the scale is {scale}", where="guidance", expected="a finite number")
    return torch.lerp(unconditional, conditional, scale)


def guided_model(
    model: Callable[[Float[Tensor, "b2 c *rest"]], Float[Tensor, "b2 o *rest"]],
    x: Float[Tensor, "b c *rest"],
    scale: float,
    channels: int | None = None,
) -> Float[Tensor, "b o *rest"]:
    """Evaluate a model for both halves of a doubled batch, and guide.

    Args:
        model: Takes [x, x]: conditional items first, the same with null labels after them.
        x: Noisy samples.
        scale: Guidance scale.
        channels: Only this many leading channels are guided, the rest stay conditional (published DiT and SiT guide
            three of four latent channels, and never the learned variance). None = all.
    """
    conditional, unconditional = model(torch.cat([x, x])).chunk(2)
    if channels is None:
        return guide(conditional, unconditional, scale)
    guided = guide(conditional[:, :channels], unconditional[:, :channels], scale)
    return torch.cat([guided, conditional[:, channels:]], dim=1)
