"""Lower bounds of the distances of all pairs of clouds, at a two-hundredth of the cost of the distances.

A nearest neighbour needs no distance that a bound has ruled out. Space is cut into cells; for the centre g of each
cell that any cloud enters, the distance F_b(g) to cloud b is found once. A point x in that cell is then at least
F_b(g) - |x - g| from b, by the triangle inequality, and every bound of a pair is a sum of look-ups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float32, Int64

from polydit.pointgen.evaluate.chamfer import PointTree

_CELLS_PER_EXTENT: Final = 32  # cells along a shape: finer ones rule out more, and cost more to fill
_MAX_CELLS: Final = 32_768
_COARSER: Final = 1.25
_MOST_PER_AXIS: Final = 1_000_000  # its cube is a number of 64 bits
_ROUNDING: Final = 0.999  # sums of 2048 numbers in float32 are this exact, ten times over


@dataclass(frozen=True, slots=True, eq=False)
class CellGrid:
    """The cells that any of the clouds enters.

    Args:
        centres: Of the cells.
        cells: Cell of each point.
        offsets: Distance of each point to the centre of its cell.
    """

    centres: Float32[np.ndarray, "cells 3"]
    cells: Int64[np.ndarray, "clouds n"]
    offsets: Float32[np.ndarray, "clouds n"]

    @classmethod
    def of(cls, clouds: Float32[np.ndarray, "clouds n 3"]) -> CellGrid:
        """Cells of a 32nd of the median shape, or coarser where clouds are so scattered that there are too many."""
        extents, whole = np.ptp(clouds, axis=1).max(1), np.ptp(clouds.reshape(-1, 3), axis=0).max()
        side = max(float(np.median(extents)) / _CELLS_PER_EXTENT, float(whole) / _MOST_PER_AXIS)
        while True:
            keys, cells = _numbered(np.floor(clouds / side).astype(np.int64).reshape(-1, 3))
            if len(keys) <= _MAX_CELLS:
                break
            side *= _COARSER
        centres = ((keys + 0.5) * side).astype(np.float32)
        cells = cells.reshape(clouds.shape[:2])
        offsets = np.stack(
            [np.linalg.norm(cloud - centres[cell], axis=1) for cloud, cell in zip(clouds, cells, strict=True)]
        )
        return cls(centres, cells, offsets.astype(np.float32))

    def bounds(self, targets: list[PointTree], *, power: int) -> Float32[np.ndarray, "clouds targets"]:
        """At most the mean over a cloud's points of (distance to the target)^power, for every cloud and target.

        Args:
            targets: Clouds; a few at a time, since the distances of all cells to each of them are held.
            power: 1 or 2.
        """
        centres = self.centres.astype(np.float64)
        fields = np.stack([target.nearest(centres) for target in targets], axis=1).astype(np.float32)
        found = np.empty((len(self.cells), len(targets)), np.float32)
        for row, (cells, offsets) in enumerate(zip(self.cells, self.offsets, strict=True)):
            least = np.maximum(fields[cells] - offsets[:, None], 0.0)
            found[row] = (np.einsum("nt,nt->t", least, least) if power == 2 else least.sum(0)) / len(cells)
        return found * np.float32(_ROUNDING)


def _numbered(keys: Int64[np.ndarray, "m 3"]) -> tuple[Int64[np.ndarray, "cells 3"], Int64[np.ndarray, " m"]]:
    """Distinct rows, and which of them each row is; the columns are packed, since sorting numbers is quick."""
    low = keys.min(0)
    spans = keys.max(0) - low + 1
    packed = ((keys[:, 0] - low[0]) * spans[1] + (keys[:, 1] - low[1])) * spans[2] + (keys[:, 2] - low[2])
    distinct, places = np.unique(packed, return_inverse=True)
    rest, z = np.divmod(distinct, spans[2])
    x, y = np.divmod(rest, spans[1])
    return np.stack([x, y, z], axis=1) + low, places.astype(np.int64)
