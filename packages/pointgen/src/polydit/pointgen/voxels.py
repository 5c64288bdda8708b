"""Points to a grid of cells and back: what lets a grid transformer work on clouds (DiT-3D, section 3.2).

Both directions compute what the CUDA kernels of the published code compute, in plain torch and always in float32.
Shapes: b clouds, n points, c channels, r cells per axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

# Below this extent all points of a cloud lie in one place, and dividing by it says nothing.
_SMALLEST_RADIUS = 1e-6


def voxel_coordinates(
    points: Float[Tensor, "b n 3"], resolution: int, extent: float = 0.0
) -> Float[Tensor, "b n 3"]:
    """Where each point lies in the grid, in cells: [0, r - 1]. No gradient goes through.

    Args:
        points: Clouds.
        resolution: Cells per axis r.
        extent: Half the side of the grid around the origin; what lies beyond is in the outermost cells. A cell then
            means the same place in every cloud. 0 as published: each cloud is centred on its mean and scaled by twice
            its largest radius (with eps = 0: a cloud whose points are all the same is divided by zero there; here it
            lies in the middle).
    """
    with torch.no_grad():
        points = points.float()
        if extent:
            unit = points / (2.0 * extent) + 0.5
        else:
            centred = points - points.mean(1, keepdim=True)
            radius = centred.norm(dim=2).amax(1).clamp(min=_SMALLEST_RADIUS)
            unit = centred / (2.0 * radius[:, None, None]) + 0.5
        return (unit * resolution).nan_to_num(nan=0.0).clamp(0, resolution - 1)  # a bad cloud fails alone


@dataclass(frozen=True, eq=False)
class Cells:
    """The cell that each point lies in: the one it is nearest to; ties go to the even cell.

    Attributes:
        index: Of each point in a flat list of all clouds' cells, x the slowest axis.
        count: Points of each cell of that list.
        resolution: Cells per axis r.
    """

    index: Int[Tensor, " bn"]
    count: Float[Tensor, " brrr"]
    resolution: int

    @classmethod
    def of(cls, coordinates: Float[Tensor, "b n 3"], resolution: int) -> Cells:
        """From where the points are in the grid: see `voxel_coordinates`."""
        x, y, z = coordinates.round().long().unbind(-1)
        first = torch.arange(len(coordinates), device=coordinates.device)[:, None] * resolution**3
        index = (first + (x * resolution + y) * resolution + z).flatten()
        count = torch.zeros(len(coordinates) * resolution**3, device=coordinates.device)
        count.index_add_(0, index, torch.ones_like(index, dtype=torch.float32))
        return cls(index, count, resolution)

    def mean(self, features: Float[Tensor, "b n c"]) -> Float[Tensor, "b c r r r"]:
        """The mean of the points' features in each cell; 0 where no point is."""
        share = features.float().flatten(0, 1) / self.count[self.index, None]
        total = torch.zeros(len(self.count), features.shape[2], device=features.device)
        return self._grid(total.index_add(0, self.index, share))

    def occupancy(self) -> Float[Tensor, "b 1 r r r"]:
        """How many points each cell holds."""
        return self._grid(self.count[:, None])

    def _grid(self, flat: Float[Tensor, "brrr c"]) -> Float[Tensor, "b c r r r"]:
        r = self.resolution
        return flat.view(-1, r, r, r, flat.shape[1]).permute(0, 4, 1, 2, 3)


def devoxelize(
    grid: Float[Tensor, "b c r r r"], coordinates: Float[Tensor, "b n 3"]
) -> Float[Tensor, "b n c"]:
    """The grid's value at each point, trilinear between the centres of cells."""
    # grid_sample wants the fastest axis first and [-1, 1] between the first and the last centre
    where = coordinates.flip(-1) * (2.0 / (grid.shape[-1] - 1)) - 1.0
    found = F.grid_sample(
        grid.float(), where[:, :, None, None], mode="bilinear", padding_mode="border", align_corners=True
    )
    return found[..., 0, 0].transpose(1, 2)
