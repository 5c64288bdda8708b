"""Norms of tokens, and of q and k per head, by name: ``NORMS`` offers

* ``"layer"``: `torch.nn.LayerNorm`;
* ``"rms"``: `torch.nn.RMSNorm`, the true root mean square;
* ``"timm-1.0.3"``: `VarianceNorm`, what timm called `RmsNorm` up to its release 1.0.12.

All are made as ``norm(width, eps=..., elementwise_affine=...)``. Shapes: ... any leading axes, d width.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class VarianceNorm(nn.Module):
    """x / √(var(x) + ε) · weight, with the variance about the mean and divisor d - 1; x itself is not centred.

    timm's `RmsNorm` computed this up to 1.0.12 (huggingface/pytorch-image-models, issue 2380). A network that was
    trained with it needs it: the true root mean square gives other numbers.

    Args:
        width: Token width d, at least 2.
        eps: ε.
        elementwise_affine: Whether there is a weight.
    """

    def __init__(self, width: int, eps: float = 1e-6, elementwise_affine: bool = True) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width)) if elementwise_affine else None

    def reset_parameters(self) -> None:
        """Ones."""
        if self.weight is not None:
            nn.init.ones_(self.weight)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        scaled = x * _InverseDeviation.apply(x, self.eps)
        return scaled if self.weight is None else (scaled * self.weight).to(x.dtype)


class _InverseDeviation(torch.autograd.Function):
    """r = 1 / √(var(x) + ε) over the last axis, from the kernel of the layer norm.

    `Tensor.var` takes up to ten times as long on a CPU (torch 2.13, measured), and that kernel gives r, but no gradient
    of it: ∂r/∂x = -r³ (x - mean) / (d - 1).
    """

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "... d"], eps: float) -> Float[Tensor, "... 1"]:
        width = x.shape[-1]
        share = (width - 1) / width  # the kernel's variance is the biased one
        _, mean, inverse = torch.native_layer_norm(x, (width,), None, None, eps * share)
        inverse = (inverse * share**0.5).to(x.dtype)
        ctx.save_for_backward(x, mean.to(x.dtype), inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "... 1"]) -> tuple[Float[Tensor, "... d"], None]:
        x, mean, inverse = ctx.saved_tensors
        return (x - mean) * (gradient * inverse**3 / (1 - x.shape[-1])), None


NORMS: dict[str, type[nn.Module]] = {
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
    "timm-1.0.3": VarianceNorm,
}
