"""Start values of RDT's three position tables, which training changes. Shapes: h horizon, n tokens, d width."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.nn.embeddings import sincos

CLOCKS_AND_STATE = 3  # tokens before the actions: time, control frequency, state


def token_positions(horizon: int, width: int) -> Float[Tensor, "1 n d"]:
    """Of [time, control frequency, state, action₀ .. action_{h-1}]: which of the four it is, then the index within it.

    Either takes half of the channels.
    """
    kind = torch.tensor([*range(CLOCKS_AND_STATE), *[CLOCKS_AND_STATE] * horizon])
    index = torch.tensor([*[0] * CLOCKS_AND_STATE, *range(horizon)])
    return torch.cat([sincos(kind, width // 2), sincos(index, width // 2)], dim=1)[None]


def condition_positions(layout: int | Sequence[int], width: int) -> Float[Tensor, "1 n d"]:
    """Of the tokens of a condition that lie on a grid, in row-major order.

    Args:
        layout: Tokens per axis, the slowest first. A negative number is an axis along which positions are alike, such
            as (2, 3, -729) for two moments, three cameras and 729 patches, which their encoder has placed already.
            Axes of more than one token share the channels evenly; what that leaves over is zero.
        width: d.
    """
    axes = (layout,) if isinstance(layout, int) else tuple(layout)
    sizes = [abs(size) for size in axes]
    placed = [axis for axis, size in enumerate(axes) if size > 1]
    if not placed:
        return sincos(torch.zeros(math.prod(sizes)), width)[None]
    share = width // len(placed) // 2 * 2
    table = torch.zeros(*sizes, width)
    for k, axis in enumerate(placed):
        along = sincos(torch.arange(sizes[axis]), share)
        shape = [-1 if i == axis else 1 for i in range(len(sizes))]
        table[..., k * share : (k + 1) * share] = along.reshape(*shape, share)
    return table.flatten(0, -2)[None]
