"""Rotary positions: queries and keys turned by their places, so that attention sees how far apart they are.

Shapes: b batch, h heads, n tokens, e head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.nn.patterns import Pattern


@dataclass(frozen=True, eq=False)
class Rotary(Pattern):
    """Attention `within` a pattern whose queries and keys are rotated first (Su et al. 2021, section 3.2.2).

    The product of a query and a key then depends on their distance alone, so a network that has no other positions does
    the same wherever its grid lies. Queries and keys are of one grid; between two streams of one place, too.

    Args:
        within: Who attends to whom.
        cosine: cos of each token's angles, each twice: for both halves of the head.
        sine: sin of them, negative for the first half.
        keys_turned: Whether the keys that `attend` is given went through `turned` before: those of a context that stays
            the same are turned once.
    """

    within: Pattern
    cosine: Float[Tensor, "n e"]
    sine: Float[Tensor, "n e"]
    keys_turned: bool = False

    @classmethod
    def of(
        cls,
        within: Pattern,
        grid: Sequence[int],
        head_width: int,
        *,
        theta: float = 10000.0,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Rotary:
        """Of the tokens of a 1-3D grid in row-major order; the pairs of a head are shared evenly among the axes.

        Args:
            within: Who attends to whom.
            grid: Tokens per axis.
            head_width: e; a multiple of 2 · number of axes.
            theta: An axis with p pairs turns by theta^(-k / p) a token, k = 0..p-1. A small one suits attention that
                is local: no pair is spent on distances that it never sees.
            device: Of the tables.
            dtype: Of the tables.

        Raises:
            ValueError: If the head cannot be shared evenly.
        """
        if head_width % (2 * len(grid)):
            raise ValueError(f"head width {head_width} is not a multiple of {2 * len(grid)}")
        pairs = head_width // (2 * len(grid))
        speed = theta ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
        places = torch.cartesian_prod(*(torch.arange(size) for size in grid)).reshape(-1, len(grid))
        angles = (places[:, :, None].double() * speed).flatten(1)
        cosine, sine = angles.cos().repeat(1, 2), torch.cat([-angles.sin(), angles.sin()], dim=1)
        return cls(within, cosine.to(device, dtype), sine.to(device, dtype))

    def attend(
        self, q: Float[Tensor, "b h n e"], k: Float[Tensor, "b h n e"], v: Float[Tensor, "b h n e"]
    ) -> Float[Tensor, "b h n e"]:
        """Softmax attention after the rotation."""
        return self.within.attend(self.turned(q), k if self.keys_turned else self.turned(k), v)

    def turned(self, x: Float[Tensor, "b h n e"]) -> Float[Tensor, "b h n e"]:
        """Each pair (a, b) of a head, a from its first half and b from its second: (a cos - b sin, b cos + a sin)."""
        first, second = x.chunk(2, dim=-1)
        swapped = torch.cat([second, first], dim=-1)
        return torch.addcmul(x * self.cosine.to(x.dtype), swapped, self.sine.to(x.dtype))
