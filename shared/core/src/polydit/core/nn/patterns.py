"""Who may attend to whom.

A pattern is one object that a model makes once per forward and every block shares. It can do two things: cut the
token axis into groups that attend among themselves (`split`/`merge`; exact and cheaper than a mask), and give a boolean
mask for what is left. `Pattern.attend` puts the two together; a pattern that knows a shorter way (`disk.Disk`) has its
own.

Shapes: b batch, h heads, n tokens, d head width, q and k query and key tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Pattern:
    """Everyone attends to everyone. Base class of all patterns."""

    def split(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "g h m d"]:
        """Cut the tokens into groups that attend among themselves; groups join the batch axis."""
        return x

    def merge(self, x: Float[Tensor, "g h m d"]) -> Float[Tensor, "b h n d"]:
        """Undo `split`."""
        return x

    def mask(self) -> Bool[Tensor, "g 1 q k"] | None:
        """True where attention is allowed, after `split`; None = everywhere."""
        return None

    def attend(
        self, q: Float[Tensor, "b h q d"], k: Float[Tensor, "b h k d"], v: Float[Tensor, "b h k d"]
    ) -> Float[Tensor, "b h q d"]:
        """Softmax attention where the pattern allows it."""
        q, k, v = self.split(q), self.split(k), self.split(v)
        return self.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask()))


class Full(Pattern):
    """Everyone attends to everyone."""


@dataclass(frozen=True, eq=False)
class Padding(Pattern):
    """Real tokens are attended to, padding is not.

    Args:
        valid: True for real tokens, shape (b, n). Each row needs at least one.
    """

    valid: Bool[Tensor, "b n"]

    @classmethod
    def of(cls, valid: Bool[Tensor, "b n"]) -> Pattern:
        """`Full` when nothing is padded: attention without a mask is faster. Reads the tensor, so call it eagerly."""
        return Full() if bool(valid.all()) else cls(valid)

    def mask(self) -> Bool[Tensor, "b 1 1 k"]:
        return self.valid[:, None, None, :]


@dataclass(frozen=True, eq=False)
class Segments(Pattern):
    """Tokens attend within their own segment: several items packed into one row, scenes, documents.

    Args:
        ids: Segment number of each token, shape (b, n). Give padding a number of its own.
    """

    ids: Int[Tensor, "b n"]

    def mask(self) -> Bool[Tensor, "b 1 n n"]:
        return (self.ids[:, :, None] == self.ids[:, None, :])[:, None]


@dataclass(frozen=True, eq=False)
class Groups(Pattern):
    """Tokens are of a few kinds, and a table says which kind sees which.

    For streams that must not leak into one another, and for items that lack a kind: a column of False hides it.

    Args:
        kinds: Kind of each token, the same in all rows, shape (n,).
        sees: True where tokens of kind q may attend to tokens of kind k, shape (b, q, k), or (1, q, k) for all rows.
            Each kind needs one that it sees, best itself.
    """

    kinds: Int[Tensor, " n"]
    sees: Bool[Tensor, "b kinds kinds"]

    def mask(self) -> Bool[Tensor, "b 1 n n"]:
        return self.sees[:, self.kinds[:, None], self.kinds[None, :]][:, None]


@dataclass(frozen=True, eq=False)
class Causal(Pattern):
    """Tokens attend to themselves and to those before them.

    Args:
        allowed: True where they do; `of` makes it.
    """

    allowed: Bool[Tensor, "1 1 n n"]

    @classmethod
    def of(cls, tokens: int, device: torch.device) -> Causal:
        """The pattern of a sequence of `tokens`."""
        return cls(torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=device).tril())

    def mask(self) -> Bool[Tensor, "1 1 n n"]:
        return self.allowed


@dataclass(frozen=True)
class Window(Pattern):
    """Tokens of a 1-3D grid attend within non-overlapping windows.

    Args:
        grid: Tokens per axis, row-major order.
        window: Window size per axis; each must divide its grid axis.

    Raises:
        ValueError: If a window does not divide the grid.
    """

    grid: Sequence[int]
    window: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.grid) != len(self.window) or any(
            g % w for g, w in zip(self.grid, self.window, strict=True)
        ):
            raise ValueError(
                f"the window {tuple(self.window)} does not divide the token grid {tuple(self.grid)}"
            )

    def split(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "g h m d"]:
        b, h, _, d = x.shape
        counts = [g // w for g, w in zip(self.grid, self.window, strict=True)]
        axes = len(counts)
        folded = x.reshape(b, h, *_interleave(counts, self.window), d)
        order = (0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2), 2 + 2 * axes)
        return folded.permute(order).reshape(b * math.prod(counts), h, math.prod(self.window), d)

    def merge(self, x: Float[Tensor, "g h m d"]) -> Float[Tensor, "b h n d"]:
        _, h, _, d = x.shape
        counts = [g // w for g, w in zip(self.grid, self.window, strict=True)]
        axes = len(counts)
        folded = x.reshape(-1, *counts, h, *self.window, d)
        order = (0, 1 + axes, *_interleave(range(1, 1 + axes), range(2 + axes, 2 + 2 * axes)), 2 + 2 * axes)
        return folded.permute(order).reshape(-1, h, math.prod(self.grid), d)


def _interleave(first: Sequence[int], second: Sequence[int]) -> list[int]:
    return [value for pair in zip(first, second, strict=True) for value in pair]


def padding_of(lengths: Int[Tensor, " b"], width: int) -> Bool[Tensor, "b n"]:
    """True for the first `lengths[i]` of `width` slots in row i."""
    return torch.arange(width, device=lengths.device)[None, :] < lengths[:, None]
