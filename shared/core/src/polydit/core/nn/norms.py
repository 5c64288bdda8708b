"""Norms of tokens, and of q and k per head, by name: ``NORMS`` offers

* ``"layer"``: `torch.nn.LayerNorm`;
* ``"rms"``: `torch.nn.RMSNorm`, the true root mean square;
* ``"timm-1.0.3"``: `VarianceNorm`, what timm called `RmsNorm` up to its release 1.0.12.

All are made as ``norm(width, eps=..., elementwise_affine=...)``. Shapes: ... any leading axes, d width.
"""

from __future__ import annotations

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
        scaled = x * self._inverse_deviation(x).to(x.dtype)
        return scaled if self.weight is None else (scaled * self.weight).to(x.dtype)

    def _inverse_deviation(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... 1"]:
        """1 / √(var(x) + ε). `Tensor.var` takes up to ten times as long on a CPU (torch 2.13, measured)."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            centred = wide - wide.mean(-1, keepdim=True)
            return torch.rsqrt(centred.square().sum(-1, keepdim=True) / (self.width - 1) + self.eps)
        # the fused kernel gives 1 / √(biased variance + ε'), but no gradient of it
        share = (self.width - 1) / self.width
        return torch.native_layer_norm(x, (self.width,), None, None, self.eps * share)[2] * share**0.5


NORMS: dict[str, type[nn.Module]] = {
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
    "timm-1.0.3": VarianceNorm,
}
