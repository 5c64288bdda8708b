"""DiT-3D: a diffusion transformer over the cells that a cloud's points lie in (Mo et al. 2023).

    points ─cells→ grid ─patches→ tokens ─DiT→ tokens ─patches→ grid ─devoxelize→ one vector per point

Any number of points goes in and comes out, at the same cost; their order does not matter. Shapes: b clouds, n points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from polydit.core.models.dit import DiT
from polydit.core.nn.modulation import ModulationTable
from polydit.pointgen.voxels import Cells, devoxelize, voxel_coordinates

_POINTS = 2048  # of published training clouds
# depth, width, heads of the published sizes; a width must be a multiple of 6, so L is wider than DiT-L
SIZES = {"S": (12, 384, 6), "B": (12, 768, 12), "L": (24, 1152, 16), "XL": (28, 1152, 16)}


class PointHead(nn.Module):
    """What a point reads from the grid, and its place in the cell, to its own three numbers.

    Args:
        channels: Numbers that it reads c.
        hidden: Width of the two layers between.
    """

    def __init__(self, channels: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels + 6, hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, 3),
        )

    def forward(
        self, read: Float[Tensor, "b n c"], coordinates: Float[Tensor, "b n 3"]
    ) -> Float[Tensor, "b n 3"]:
        """In the weights' type inside, float32 outside.

        Args:
            read: From the grid.
            coordinates: In cells. The network is told their fraction as an angle, so that it does not jump from one
                cell to the next.
        """
        angle = 2.0 * torch.pi * coordinates
        own = torch.cat([read, angle.sin(), angle.cos()], dim=-1)
        return self.layers(own.to(next(self.parameters()).dtype)).float()


class PointDiT(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """DiT-3D. Its transformer is `dit`: caches and other hooks of diffusers go there.

    Args:
        voxels: Cells per axis r.
        patch_size: Cells per axis of a patch.
        width: Token width; a multiple of 6.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward over `width`.
        num_classes: Categories, without the null class, which is label `num_classes`.
        window: Tokens per axis of the windows that attention stays in; 0 = none.
        window_blocks: Blocks that have windows. Published: every third, but as published no block ever had any, so a
            published checkpoint of the window model needs () here.
        modulation: "adaln" as published, or "adaln_single".
        extent: Half the side of the grid, of normalised clouds; 0 as published: the grid fits each cloud.
        occupancy: Whether the network also sees how many points a cell holds. Published: False.
        point_channels: Channels that each point reads from the grid for a small network of its own, which also knows
            where in its cell the point lies (PVCNN's second branch: Liu et al. 2019). 0 as published: the grid itself
            holds the three numbers, so within a cell they change linearly.

    Raises:
        ValueError: The patch does not divide the grid, the window not the grid of patches, or the width is no multiple
            of 6.
    """

    _repeated_blocks = ["DiTBlock"]  # noqa: RUF012  diffusers reads class-level lists
    _no_split_modules = ["DiTBlock"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        voxels: int = 32,
        patch_size: int = 4,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        num_classes: int = 1,
        window: int = 0,
        window_blocks: Sequence[int] = (),
        modulation: str = "adaln",
        extent: float = 0.0,
        occupancy: bool = False,
        point_channels: int = 0,
    ) -> None:
        super().__init__()
        self.dit = DiT(
            sample_size=(voxels,) * 3,
            patch_size=patch_size,
            in_channels=4 if occupancy else 3,
            out_channels=point_channels or 3,
            width=width,
            depth=depth,
            heads=heads,
            mlp_ratio=mlp_ratio,
            num_classes=num_classes,
            learn_sigma=False,
            modulation=modulation,
            feed_forward="gelu",
            window=window,
            window_blocks=window_blocks,
            slowest_first=True,
        )
        self.point_head = PointHead(point_channels) if point_channels else None

    @classmethod
    def of_size(cls, name: str, **settings: Any) -> PointDiT:
        """A published size: S, B, L or XL."""
        depth, width, heads = SIZES[name]
        return cls(**{"depth": depth, "width": width, "heads": heads, **settings})

    def modulate(
        self, timestep: Float[Tensor, " u"] | Int[Tensor, " u"], class_labels: Int[Tensor, " u"]
    ) -> ModulationTable:
        """The modulation of all blocks for each (time, category): give it to `forward` to skip computing it there."""
        return self.dit.modulate(timestep, class_labels)

    def forward(
        self,
        points: Float[Tensor, "b n 3"],
        timestep: Float[Tensor, " b"] | Int[Tensor, " b"] | None = None,
        class_labels: Int[Tensor, " b"] | None = None,
        modulation: ModulationTable | None = None,
    ) -> Float[Tensor, "b n 3"]:
        """One vector per point, in float32: the noise as published, or what another objective asks for.

        Args:
            points: Noisy clouds, normalised.
            timestep: 0..999 as published, or what the objective calls time.
            class_labels: 0..num_classes; num_classes is the null class.
            modulation: From `modulate`, one row per cloud; then time and labels are not needed.
        """
        coordinates = voxel_coordinates(points, self.config.voxels, self.config.extent)
        cells = Cells.of(coordinates, self.config.voxels)
        grid = cells.mean(points)
        if self.config.occupancy:
            # as if there were 2048 points, of which a surface cell holds a handful: more points are no other shape
            count = cells.occupancy() * (_POINTS / points.shape[1])
            grid = torch.cat([grid, count.clamp(max=16.0) / 4.0], dim=1)
        grid = grid.to(self.dtype)
        found = devoxelize(
            self.dit(grid, timestep, class_labels, modulation, return_dict=False)[0], coordinates
        )
        return found if self.point_head is None else self.point_head(found, coordinates)
