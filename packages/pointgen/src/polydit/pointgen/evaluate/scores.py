"""1-NNA, COV, MMD and JSD of one set of generated clouds against one of references, from their distances.

The definitions are those of Achlioptas et al. 2018 (COV, MMD, JSD) and PointFlow (1-NNA), on the full sets: averaged
over batches, as some published code does it, the same samples score 47 % instead of 84 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from polydit.core.figure import Figure, Measure

_Z_95: Final = 1.959963984540054
_GRID: Final = 28  # cells along an axis of the JSD
_RADIUS: Final = 0.5


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Who is nearest to whom, among the references and among the samples.

    Args:
        matrix: Distances of all clouds, infinite on the diagonal and wherever nobody's neighbour is.
        is_reference: Which of them are references.
    """

    matrix: Float[np.ndarray, "clouds clouds"]
    is_reference: Bool[np.ndarray, " clouds"]

    @property
    def reference_of_sample(self) -> Int[np.ndarray, " samples"]:
        """For each sample the number of its nearest reference."""
        nearest: Int[np.ndarray, " samples"] = self._between.argmin(0)
        return nearest

    @property
    def to_reference(self) -> Float[np.ndarray, " samples"]:
        """For each sample the distance to its nearest reference."""
        distances: Float[np.ndarray, " samples"] = self._between.min(0)
        return distances

    @property
    def to_sample(self) -> Float[np.ndarray, " references"]:
        """For each reference the distance to its nearest sample."""
        distances: Float[np.ndarray, " references"] = self._between.min(1)
        return distances

    @property
    def found_own(self) -> Bool[np.ndarray, " clouds"]:
        """For each cloud whether the nearest of all others is of its own set."""
        found: Bool[np.ndarray, " clouds"] = self.is_reference[self.matrix.argmin(1)] == self.is_reference
        return found

    @property
    def _between(self) -> Float[np.ndarray, "references samples"]:
        between: Float[np.ndarray, "references samples"] = self.matrix[self.is_reference][
            :, ~self.is_reference
        ]
        return between


def neighbour_scores(neighbours: Neighbours, metric: str, method: str) -> list[Figure | Measure]:
    """1-NNA with its two halves, COV, and MMD both ways.

    Args:
        neighbours: Of all clouds of a category.
        metric: "cd" or "emd": part of the figures' names.
        method: The distance in words.
    """
    own, is_reference = neighbours.found_own, neighbours.is_reference
    covered = len(np.unique(neighbours.reference_of_sample))
    whole, sets = (
        "leave-one-out 1-NN accuracy over both full sets; 50 % is ideal",
        {"t": "references", "f": "samples"},
    )
    scores: list[Figure | Measure] = [_fraction(f"1-nna-{metric}", own, f"{whole}; {method}")]
    for half, members in (("t", is_reference), ("f", ~is_reference)):
        text = f"the {sets[half]} alone, whose nearest neighbour is one of the {sets[half]}; {method}"
        scores.append(_fraction(f"1-nna-{metric}-acc_{half}", own[members], text))
    scores.append(
        Figure(
            name=f"cov-{metric}",
            numerator=covered,
            denominator=int(is_reference.sum()),
            method=f"references that are the nearest of any sample; {method}",
        )
    )
    return [
        *scores,
        _mean(f"mmd-{metric}", neighbours.to_sample, f"mean over references, nearest sample; {method}"),
        _mean(
            f"mmd-smp-{metric}", neighbours.to_reference, f"mean over samples, nearest reference; {method}"
        ),
    ]


def _fraction(name: str, passed: Bool[np.ndarray, " n"], method: str) -> Figure:
    return Figure(name=name, numerator=int(passed.sum()), denominator=len(passed), method=method)


def _mean(name: str, values: Float[np.ndarray, " n"], method: str) -> Measure:
    """With the normal interval of a mean, since the clouds are drawn independently."""
    mean, spread = float(values.mean()), None
    if len(values) > 1:
        half = _Z_95 * float(values.std(ddof=1)) / math.sqrt(len(values))
        spread = (max(0.0, mean - half), mean + half)
    return Measure(name=name, value=mean, unit="", method=method, interval=spread)


def jensen_shannon(a: Float[np.ndarray, "clouds n 3"], b: Float[np.ndarray, "others m 3"]) -> Measure:
    """JSD of where the points of all clouds of a set lie, in base 2: 0 (alike) to 1.

    Each point counts for the nearest of 28³ grid points that lie within the ball of radius 0.5 around the origin; so
    points beyond the ball count at its border, and the method says how many did.
    """
    points = [clouds.reshape(-1, 3) for clouds in (a, b)]
    tree = cKDTree(_ball(), balanced_tree=False, compact_nodes=False)
    shares = [np.bincount(tree.query(flat)[1], minlength=tree.n) / len(flat) for flat in points]
    outside = [float((np.linalg.norm(flat, axis=1) > _RADIUS).mean()) for flat in points]
    method = f"28³ grid in the ball of radius 0.5, base 2; {a.shape[1]} points"
    if max(outside) > 0:
        method += (
            f"; beyond the ball: {outside[0]:.1%} of the samples' points, {outside[1]:.1%} of the references'"
        )
    middle = (shares[0] + shares[1]) / 2
    value = sum(_divergence(share, middle) for share in shares) / 2
    return Measure(name="jsd", value=value, unit="bit", method=method)


def _ball() -> Float[np.ndarray, "cells 3"]:
    axis = np.linspace(-_RADIUS, _RADIUS, _GRID)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    inside: Float[np.ndarray, "cells 3"] = grid[np.linalg.norm(grid, axis=1) <= _RADIUS]
    return inside


def _divergence(p: Float[np.ndarray, " cells"], q: Float[np.ndarray, " cells"]) -> float:
    there = p > 0
    return float((p[there] * np.log2(p[there] / q[there])).sum())
