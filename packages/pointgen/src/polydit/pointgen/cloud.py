"""A cloud of points, and the one normalisation of a data set. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from polydit.core.errors import InputError

LARGEST_COORDINATE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cloud:
    """Points on the surface of one shape.

    Args:
        id: Its name.
        points: Coordinates in the units of its data set; the y axis points up in ShapeNet.
        category: Such as "chair"; "" = unknown.
        source: Where it was read from.
    """

    id: str
    points: Float32[np.ndarray, "n 3"]
    category: str = ""
    source: str = ""

    @property
    def num_points(self) -> int:
        """Number of points."""
        return len(self.points)


@dataclass(frozen=True, slots=True)
class Rejected:
    """What could not become a cloud.

    Args:
        source: Where it was read from, or the id of the request.
        reason: One sentence.
    """

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Normalisation:
    """One mean per axis and one scale for a whole data set (PointFlow); a model is of no use without them.

    Args:
        mean: Mean of all points of the training set.
        scale: Standard deviation of all their coordinates.
    """

    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not (self.scale > 0.0 and np.isfinite([*self.mean, self.scale]).all()):
            raise InputError(
                f"mean {self.mean} and scale {self.scale} normalise nothing",
                expected="finite numbers and a positive scale",
            )

    @classmethod
    def of(cls, points: Float32[np.ndarray, "*clouds n 3"]) -> Normalisation:
        """Of all points together: the mean of each axis, and one deviation over all coordinates."""
        flat = points.reshape(-1, 3).astype(np.float64)
        mean = flat.mean(0)
        return cls((float(mean[0]), float(mean[1]), float(mean[2])), float((flat - mean).std()))

    def normalise(self, points: Float32[np.ndarray, "*clouds 3"]) -> Float32[np.ndarray, "*clouds 3"]:
        """Units of the data set to those of the network."""
        return (points - np.array(self.mean, np.float32)) / np.float32(self.scale)

    def denormalise(self, points: Float32[np.ndarray, "*clouds 3"]) -> Float32[np.ndarray, "*clouds 3"]:
        """Units of the network to those of the data set."""
        return points * np.float32(self.scale) + np.array(self.mean, np.float32)


def fault(points: np.ndarray) -> str:
    """Why an array is no cloud, as a sentence; "" if it is one.

    A cloud has two axes, three coordinates, at least two points, finite numbers of at most `LARGEST_COORDINATE`, and an
    extent.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        return f"an array of shape {points.shape} is no cloud; expected (points, 3)"
    if len(points) < 2:
        return f"{len(points)} points are no shape"
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points)).any(1).sum())
        return f"{bad} of {len(points)} points are not finite"
    if (largest := float(np.abs(points).max())) > LARGEST_COORDINATE:
        return f"a coordinate of {largest:.3g} is beyond {LARGEST_COORDINATE:g}"
    if float(np.ptp(points, axis=0).max()) == 0.0:
        return f"all {len(points)} points are the same"
    return ""
