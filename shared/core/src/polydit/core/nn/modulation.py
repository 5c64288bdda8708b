"""How time and condition steer the blocks.

Modulation depends only on the condition, never on the tokens. So it is a part of the network, not of the block: one
call gives the shifts, scales and gates of all blocks, and a sampler may compute it once per distinct condition and
step. The "1 +" of every scale is added here, so that a block applies it with one fused `addcmul`.

Shapes: u distinct conditions, d width, l blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

# shift, 1 + scale, gate of the token mixer, then of the feed-forward
_BLOCK_OFFSET = (0.0, 1.0, 0.0, 0.0, 1.0, 0.0)
# shift, 1 + scale of the final layer
_FINAL_OFFSET = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class ModulationTable:
    """Shifts, scales (with their 1 added) and gates of a whole network, one row per condition.

    Args:
        blocks: (shift, 1 + scale, gate) of the token mixer and of the feed-forward, shape (u, l, 6, d).
        final: (shift, 1 + scale) of the final layer, shape (u, 2, d).
    """

    blocks: Float[Tensor, "u l 6 d"]
    final: Float[Tensor, "u 2 d"]

    def rows(self, index: Int[Tensor, " b"]) -> ModulationTable:
        """The rows `index`: from distinct conditions to the items of a batch."""
        return ModulationTable(self.blocks[index], self.final[index])


class AdaLNZero(nn.Module):
    """adaLN-Zero (Peebles & Xie 2023, section 3.2): a matrix per block, all of them in one product.

    Args:
        width: Token width d; also the condition's width.
        depth: Number of blocks l.
    """

    offset: Tensor

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.linear = nn.Linear(width, (6 * depth + 2) * width)
        offset = torch.tensor(_BLOCK_OFFSET * depth + _FINAL_OFFSET)[:, None]
        self.register_buffer("offset", offset, persistent=False)

    def reset_parameters(self) -> None:
        """Zeros: every block starts as the identity."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Float[Tensor, "u d"]) -> ModulationTable:
        rows = self.linear(F.silu(condition)).unflatten(-1, (6 * self.depth + 2, -1)) + self.offset
        return ModulationTable(rows[:, :-2].unflatten(1, (self.depth, 6)), rows[:, -2:])


class AdaLNSingle(nn.Module):
    """adaLN-single (Chen et al. 2023, PixArt-α, section 2.3): one matrix for all blocks, a learned offset per block.

    Takes 6 d² weights instead of 6 l d²: for small networks, a third of all weights is saved.

    Args:
        width: Token width d; also the condition's width.
        depth: Number of blocks l.
    """

    block_offset: Tensor
    final_offset: Tensor

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 6 * width)
        self.blocks = nn.Parameter(torch.empty(depth, 6, width))
        self.final = nn.Parameter(torch.empty(2, width))
        self.register_buffer("block_offset", torch.tensor(_BLOCK_OFFSET)[:, None], persistent=False)
        self.register_buffer("final_offset", torch.tensor(_FINAL_OFFSET)[:, None], persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zeros in the matrix: every block starts as (nearly) the identity."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        nn.init.normal_(self.blocks, std=self.blocks.shape[-1] ** -0.5)
        nn.init.normal_(self.final, std=self.final.shape[-1] ** -0.5)

    def forward(self, condition: Float[Tensor, "u d"]) -> ModulationTable:
        shared = self.linear(F.silu(condition)).unflatten(-1, (6, -1)) + self.block_offset
        final = self.final + condition[:, None] + self.final_offset
        return ModulationTable(shared[:, None] + self.blocks, final)


MODULATIONS = {"adaln": AdaLNZero, "adaln_single": AdaLNSingle}
