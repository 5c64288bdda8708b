"""Channel mixers: what a block does to each token by itself. Shapes: ... any leading axes, d width."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # exact, by the error function
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """fc2(activation(fc1(x))).

    Args:
        width: Token width d.
        hidden: Width between the two layers.
        activation: A key of `ACTIVATIONS`. Published DiT and ADiT use "gelu_tanh"; exact "gelu" is off by up to 4e-4.
    """

    def __init__(self, width: int, hidden: int, activation: str = "gelu_tanh") -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.activation = ACTIVATIONS[activation]
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return self.fc2(self.activation(self.fc1(x)))


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
