"""What is in a set of clouds: categories, numbers of points, extents, and what was rejected and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from polydit.pointgen.cloud import Cloud, Rejected

_UNKNOWN = "(none stated)"


@dataclass(slots=True)
class Inspection:
    """Counts that grow with the variety of the data, not with its amount.

    Args:
        show_rejected: Most rejected entries to keep.
        categories: Clouds by category.
        sizes: Clouds by number of points.
        sides: Longest side of the bounding box of each cloud.
        rejected: The first entries that were no cloud.
        num_rejected: How many there were.
    """

    show_rejected: int = 20
    categories: Counter[str] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    sides: list[float] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    num_rejected: int = 0
    _low: np.ndarray = field(default_factory=lambda: np.full(3, np.inf))
    _high: np.ndarray = field(default_factory=lambda: np.full(3, -np.inf))
    _sum: np.ndarray = field(default_factory=lambda: np.zeros(3))
    _squares: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def add(self, record: Cloud | Rejected) -> None:
        """Count one record."""
        if isinstance(record, Rejected):
            self.num_rejected += 1
            if len(self.rejected) < self.show_rejected:
                self.rejected.append(record)
            return
        points = record.points.astype(np.float64)
        low, high = points.min(0), points.max(0)
        self.categories[record.category or _UNKNOWN] += 1
        self.sizes[len(points)] += 1
        self.sides.append(float((high - low).max()))
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        self._sum += points.sum(0)
        self._squares += (points**2).sum(0)

    def add_all(self, records: Iterable[Cloud | Rejected]) -> Inspection:
        """Count all records and return the inspection itself."""
        for record in records:
            self.add(record)
        return self

    @property
    def num_clouds(self) -> int:
        """Clouds that were read."""
        return self.categories.total()

    @property
    def num_points(self) -> int:
        """Points of all clouds."""
        return sum(size * number for size, number in self.sizes.items())

    @property
    def mean(self) -> list[float]:
        """Mean of all points."""
        return [float(value) for value in self._sum / max(self.num_points, 1)]

    @property
    def scale(self) -> float:
        """Standard deviation of all coordinates from the mean of their axis: what a model divides by."""
        variance = self._squares / max(self.num_points, 1) - np.square(self.mean)
        return float(np.sqrt(max(float(variance.mean()), 0.0)))

    def to_json(self) -> dict[str, Any]:
        """All figures, for a program; null where there is no cloud."""
        some = self.num_clouds > 0
        return {
            "clouds": self.num_clouds,
            "categories": dict(sorted(self.categories.items())),
            "points": dict(sorted(self.sizes.items())),
            "mean": self.mean if some else None,
            "scale": self.scale if some else None,
            "low": self._low.tolist() if some else None,
            "high": self._high.tolist() if some else None,
            "longest_side": _quantiles(self.sides) if some else None,
            "rejected": self.num_rejected,
            "rejections": [{"source": entry.source, "reason": entry.reason} for entry in self.rejected],
        }

    def lines(self) -> list[str]:
        """The same for a person."""
        lines = [f"{self.num_clouds} clouds, {self.num_rejected} rejected"]
        if self.num_clouds:
            width = max(map(len, self.categories))
            lines += ["", *(f"  {name:<{width}}  {n}" for name, n in sorted(self.categories.items()))]
            lines += ["", "points per cloud: " + _sizes(self.sizes)]
            sides = _quantiles(self.sides)
            lines.append("longest side: " + ", ".join(f"{key} {value:.4g}" for key, value in sides.items()))
            lines.append("from " + _vector(self._low) + " to " + _vector(self._high))
            lines.append(f"mean {_vector(self.mean)}, scale {self.scale:.4g}")
        if self.rejected:
            lines += ["", f"rejected, the first {len(self.rejected)} of {self.num_rejected}"]
            lines += [f"  {entry.source}: {entry.reason}" for entry in self.rejected]
        return lines


def _quantiles(values: list[float]) -> dict[str, float]:
    low, middle, high = np.quantile(values, [0.0, 0.5, 1.0]).tolist()
    return {"least": low, "median": middle, "most": high}


def _sizes(sizes: Counter[int]) -> str:
    if len(sizes) == 1:
        return f"{next(iter(sizes)):,}"
    return f"{min(sizes):,} to {max(sizes):,}"


def _vector(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"
