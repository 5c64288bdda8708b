"""Channel mixers: what a block does to each token by itself. Shapes: ... any leading axes, d width."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from polydit.core.nn.linear import ACTIVATIONS, linear


class FeedForward(nn.Module):
    """fc2(activation(fc1(x))).

    Args:
        width: Token width d.
        hidden: Width between the two layers.
        activation: A key of `ACTIVATIONS`. Published DiT and ADiT use "gelu_tanh"; exact "gelu" is off by up to 4e-4.
        out: Output width o; None = `width`.
    """

    def __init__(
        self, width: int, hidden: int, activation: str = "gelu_tanh", *, out: int | None = None
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}, expected one of {', '.join(ACTIVATIONS)}")
        self.fc1 = nn.Linear(width, hidden)
        self.activation = activation
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... o"]:
        return linear(linear(x, self.fc1, self.activation), self.fc2)


class SwiGLU(nn.Module):
    """fc2(silu(gate) · up) with gate and up from one matrix (Shazeer 2020, equation 6), without biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * hidden, bias=False)
        self.fc2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        gate, up = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * up)


def feed_forward(kind: str, width: int, hidden: int) -> nn.Module:
    """The channel mixer named `kind`: "swiglu", or a plain one by its activation."""
    return SwiGLU(width, hidden) if kind == "swiglu" else FeedForward(width, hidden, kind)
