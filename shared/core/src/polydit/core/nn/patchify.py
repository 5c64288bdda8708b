"""Grids to patch tokens and back, in 1-3 dimensions. Shapes: b batch, c channels, n tokens, d width."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


def patchify(x: Float[Tensor, "b c *grid"], patch: Sequence[int]) -> Float[Tensor, "b n k"]:
    """Cut a grid into patches, each flattened in the order (channel, patch axes).

    That is the order of a convolution's weight, so a published patch convolution is a plain matrix here.

    Args:
        x: A 1-3D grid with channels first.
        patch: Patch size per axis; each must divide its grid axis.

    Raises:
        ValueError: If a patch size does not divide the grid.
    """
    b, c, *grid = x.shape
    axes = len(grid)
    if len(patch) != axes or any(g % p for g, p in zip(grid, patch, strict=True)):
        raise ValueError(f"the patch {tuple(patch)} does not divide the grid {tuple(grid)}")
    folded = x.reshape(b, c, *(size for g, p in zip(grid, patch, strict=True) for size in (g // p, p)))
    order = (0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 3 + 2 * axes, 2))
    return folded.permute(order).reshape(b, -1, c * math.prod(patch))


def unpatchify(
    tokens: Float[Tensor, "b n k"], grid: Sequence[int], patch: Sequence[int]
) -> Float[Tensor, "b c *grid"]:
    """Put patches back, each flattened in the order (patch axes, channel): the order of DiT's final layer.

    Args:
        tokens: Row-major patches.
        grid: Tokens (not cells) per axis.
        patch: Patch size per axis.
    """
    b, axes = tokens.shape[0], len(grid)
    folded = tokens.reshape(b, *grid, *patch, -1)
    order = (0, 1 + 2 * axes, *(i for a in range(axes) for i in (1 + a, 1 + axes + a)))
    return folded.permute(order).reshape(b, -1, *(g * p for g, p in zip(grid, patch, strict=True)))


class PatchEmbed(nn.Module):
    """Patches to tokens by one matrix; the same as a convolution whose stride is its kernel.

    Args:
        channels: Input channels c.
        patch: Patch size per axis.
        width: Token width d.
    """

    def __init__(self, channels: int, patch: Sequence[int], width: int) -> None:
        super().__init__()
        self.patch = tuple(patch)
        self.linear = nn.Linear(channels * math.prod(patch), width)

    def forward(self, x: Float[Tensor, "b c *grid"]) -> Float[Tensor, "b n d"]:
        return self.linear(patchify(x, self.patch))
