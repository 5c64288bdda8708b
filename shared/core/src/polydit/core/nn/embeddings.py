"""Times, labels and positions as vectors. Shapes: b batch, n tokens, d width."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.models.embeddings import get_timestep_embedding
from jaxtyping import Float, Int
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """[cos | sin] features of the time, then Linear, SiLU, Linear (Peebles & Xie 2023, as in ADM).

    Args:
        width: Output width d.
        channels: Sinusoidal features.
        frequency_shift: Frequencies are 10000^(-k / (channels/2 - shift)). Published DiT and SiT: 0. Networks that were
            trained in diffusers' `DiTTransformer2DModel`: 1.
    """

    def __init__(self, width: int, channels: int = 256, frequency_shift: float = 0.0) -> None:
        super().__init__()
        self.channels, self.frequency_shift = channels, frequency_shift
        first, second = nn.Linear(channels, width), nn.Linear(width, width)
        self.mlp = nn.Sequential(first, nn.SiLU(), second)

    def reset_parameters(self) -> None:
        for layer in (self.mlp[0], self.mlp[2]):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, timestep: Float[Tensor, " b"] | Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Time in the units that the network was trained with: 0..999 for DiT, 0..1 for SiT and ADiT."""
        features = get_timestep_embedding(
            timestep, self.channels, flip_sin_to_cos=True, downscale_freq_shift=self.frequency_shift
        )
        return self.mlp(features.to(next(self.mlp.parameters()).dtype))


class LabelEmbedding(nn.Embedding):
    """A table of class vectors, the null class of classifier-free guidance among them.

    Args:
        num_classes: Rows, the null class included.
        width: Vector width d.
        null: Row of the null class. DiT: the last row. ADiT: row 0.
    """

    def __init__(self, num_classes: int, width: int, *, null: int) -> None:
        super().__init__(num_classes, width)
        self.null = null % num_classes

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)


def drop_labels(
    labels: Int[Tensor, " b"], null: int, probability: float, generator: torch.Generator | None = None
) -> Int[Tensor, " b"]:
    """Replace labels by the null class at random: what makes classifier-free guidance possible (Ho & Salimans 2022)."""
    draw = torch.rand(
        labels.shape, generator=generator, device=generator.device if generator else labels.device
    )
    return torch.where(draw.to(labels.device) < probability, null, labels)


def sincos_grid(grid: Sequence[int], width: int, *, slowest_first: bool = False) -> Float[Tensor, "n d"]:
    """Fixed [sin | cos] position table of a 1-3D grid, rows in row-major order (Vaswani et al. 2017, section 3.5).

    The width is shared evenly among the axes, the fastest axis first: for images the first half of the channels
    encodes the column, the second the row, as in published DiT (its comment says the reverse).

    Args:
        grid: Tokens per axis.
        width: d; a multiple of 2 · number of axes.
        slowest_first: The first channels encode the slowest axis, as in DiT-3D.

    Raises:
        ValueError: If the width cannot be shared evenly.
    """
    if width % (2 * len(grid)):
        raise ValueError(f"width {width} is not a multiple of {2 * len(grid)} for a grid of {len(grid)} axes")
    axes = torch.meshgrid(*(torch.arange(g, dtype=torch.float64) for g in grid), indexing="ij")
    ordered = axes if slowest_first else tuple(reversed(axes))
    return torch.cat([sincos(axis.flatten(), width // len(grid)) for axis in ordered], dim=1)


def sincos(positions: Float[Tensor, " n"] | Int[Tensor, " n"], width: int) -> Float[Tensor, "n d"]:
    """[sin(p w) | cos(p w)], w_k = 10000^(-k / (d/2)), k = 0..d/2-1 (Vaswani et al. 2017, section 3.5); in float64."""
    omega = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.double()[:, None] * omega.to(positions.device)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def token_positions(num_tokens: int, width: int, device: torch.device | None = None) -> Float[Tensor, "n d"]:
    """[sin | cos](i·π / 2048^(2k/d)), k = 0..d/2-1: positions in a sequence of atoms (ADiT, appendix A)."""
    k = torch.arange(width // 2, dtype=torch.float32, device=device)
    index = torch.arange(num_tokens, dtype=torch.float32, device=device)[:, None]
    angles = index * math.pi / 2048 ** (2 * k / width)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
