"""The distance that a figure stands on, by name, with the three ways to compute it for pairs of clouds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Float32, Float64, Int32

from polydit.pointgen.evaluate.bounds import CellGrid
from polydit.pointgen.evaluate.chamfer import PointTree, chamfer_distance
from polydit.pointgen.evaluate.emd import EmdVariant, exact_emd

Pairs = Int32[np.ndarray, "pairs 2"]
Distances = Float64[np.ndarray, " pairs"]
Clouds = Float32[np.ndarray, "clouds n 3"]

_TREES: Final = 1024  # kept by a process; one of 2048 points is some 150 kB


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance between clouds of the same number of points.

    Args:
        metric: "cd" or "emd".
        num_points: Of each cloud.
        variant: Which of the three EMDs; None for CD.
        device: Where torch computes it, such as "cuda:0"; "cpu" = without torch, except for the kernel.
    """

    metric: Literal["cd", "emd"]
    num_points: int
    variant: EmdVariant | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        assert (self.metric == "emd") == (self.variant is not None), self

    @property
    def method(self) -> str:
        """The rule in words: what a figure must name to be comparable."""
        what = {
            None: "Chamfer distance, squared, sum of two means",
            "exact-l2": "EMD, exact assignment, L2 not squared (PointFlow)",
            "exact-squared": "EMD, exact assignment, squared distances",
            "kernel": "EMD, approximate kernel, squared distances (PVD, LION, DiT-3D)",
        }[self.variant]
        return f"{what}, {self.num_points} points"

    @property
    def by_torch(self) -> bool:
        """Computed in this process by torch, in batches, rather than by worker processes."""
        return self.variant == "kernel" or (self.variant is None and self.device != "cpu")

    @property
    def power(self) -> int | None:
        """Power of the point distances in the lower bounds of this distance; None = there are none.

        Each point of a cloud is at least as far from its partner as from the nearest point. The kernel may leave
        mass behind, so nothing bounds it.
        """
        return {None: 2, "exact-squared": 2, "exact-l2": 1, "kernel": None}[self.variant]

    @property
    def pairs_per_batch(self) -> int:
        """As many pairs as take about a second; what a kill can lose."""
        if self.by_torch:
            return max(1, 2**24 // self.num_points**2) if self.variant else 512
        if self.variant:
            return max(1, 2**22 // self.num_points**2)
        return max(16, 2**19 // self.num_points)

    def both_ways(self, bounds: np.ndarray) -> np.ndarray:
        """Bounds of the distance from those of its two directions, a square matrix."""
        there, back = bounds, bounds.T
        both: np.ndarray = there + back if self.variant is None else np.maximum(there, back)
        return both


@dataclass(frozen=True, slots=True)
class Block:
    """A task: lower bounds of all clouds to those of a range; its tile is (clouds, stop - start)."""

    start: int
    stop: int

    @property
    def key(self) -> str:
        """Name of the tile."""
        return f"bounds-{self.start}-{self.stop}"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A task: the distances of some pairs of clouds; its tile is (pairs,)."""

    pairs: Pairs

    @property
    def key(self) -> str:
        """Name of the tile, the same whenever the same pairs are asked for."""
        return f"pairs-{hashlib.sha256(np.ascontiguousarray(self.pairs).tobytes()).hexdigest()[:20]}"


Task = Block | Batch


@contextmanager
def at_work(clouds: Clouds, distance: Distance) -> Iterator[Callable[[Task], np.ndarray]]:
    """What a process does: a task to its tile.

    Args:
        clouds: All of them; tasks name them by their place.
        distance: Which.
    """
    grid: CellGrid | None = None

    @lru_cache(_TREES)
    def tree(index: int) -> PointTree:
        return PointTree(clouds[index])

    def work(task: Task) -> np.ndarray:
        nonlocal grid
        if isinstance(task, Block):
            assert distance.power is not None
            grid = grid or CellGrid.of(clouds)
            return grid.bounds([tree(i) for i in range(task.start, task.stop)], power=distance.power)
        if distance.by_torch:
            return _by_torch(clouds, distance, task.pairs)
        if distance.variant:
            squared = distance.variant == "exact-squared"
            return np.array(
                [exact_emd(clouds[i], clouds[j], squared=squared) for i, j in task.pairs.tolist()]
            )
        return np.array([chamfer_distance(tree(i), tree(j)) for i, j in task.pairs.tolist()])

    yield work


def _by_torch(clouds: Clouds, distance: Distance, pairs: Pairs) -> Distances:
    import torch

    from polydit.pointgen.evaluate.chamfer import chamfer_pairs
    from polydit.pointgen.evaluate.emd import kernel_emd

    compute: Any = kernel_emd if distance.variant else chamfer_pairs
    at_once = max(1, 2**26 // distance.num_points**2)
    with torch.inference_mode():
        parts = [
            compute(*(torch.from_numpy(clouds[part[:, side]]).to(distance.device) for side in (0, 1))).cpu()
            for part in np.array_split(pairs, max(1, -(-len(pairs) // at_once)))
        ]
    values: Distances = torch.cat(parts).double().numpy()
    return values
