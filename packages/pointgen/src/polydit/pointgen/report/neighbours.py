"""The nearest training shape of each sample: whether a model makes shapes, or remembers them.

A distance alone says little, so the same is measured of some training shapes: their distance to the nearest other one.
Samples that are much nearer to the training set than it is to itself are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from polydit.core.errors import InputError
from polydit.pointgen.cloud import Cloud, Rejected
from polydit.pointgen.data.pc15k import find_splits
from polydit.pointgen.data.readers import read_clouds
from polydit.pointgen.evaluate.chamfer import PointTree, chamfer_distance
from polydit.pointgen.report.clouds import chosen_points

NUM_POINTS: Final = 2048
_COARSE: Final = 256  # points that decide which training shapes are measured with all
_CANDIDATES: Final = 4
_PROBES: Final = 8  # training shapes of each category that the samples are compared with


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A training shape and its distance.

    Args:
        cloud: The shape, with at most `NUM_POINTS` points.
        distance: Chamfer distance, squared, the sum of two means.
    """

    cloud: Cloud
    distance: float


@dataclass(slots=True)
class Neighbours:
    """What was found.

    Args:
        of: The nearest training shape by the sample's id.
        usual: Distances of training shapes to the nearest other one.
        searched: Training shapes that were read.
    """

    of: dict[str, Neighbour] = field(default_factory=dict)
    usual: list[float] = field(default_factory=list)
    searched: int = 0

    def to_json(self) -> dict[str, Any]:
        """Distances, for a program."""
        found = {
            name: {"training shape": near.cloud.id, "distance": near.distance}
            for name, near in self.of.items()
        }
        distances = [near.distance for near in self.of.values()]
        return {
            "method": METHOD,
            "searched": self.searched,
            "median_of_samples": median(distances) if distances else None,
            "median_of_training_shapes": median(self.usual) if self.usual else None,
            "samples": found,
        }


METHOD: Final = (
    f"Chamfer distance, squared, the sum of two means, of {NUM_POINTS} points each; the {_CANDIDATES} nearest by "
    f"{_COARSE} points are measured with all."
)


@dataclass(eq=False)
class _Query:
    """A shape whose neighbour is looked for."""

    cloud: Cloud
    coarse: PointTree
    best: list[tuple[float, int, Cloud]] = field(default_factory=list)

    def consider(self, number: int, cloud: Cloud, coarse: PointTree) -> None:
        """Keeps a training shape if it is among the nearest so far."""
        self.best.append((chamfer_distance(self.coarse, coarse), number, cloud))
        self.best.sort(key=lambda entry: entry[:2])
        del self.best[_CANDIDATES:]

    def nearest(self) -> Neighbour | None:
        """Of those kept, measured with all points."""
        if not self.best:
            return None
        own = PointTree(self.cloud.points)
        found = [
            Neighbour(cloud, chamfer_distance(own, PointTree(cloud.points))) for _, _, cloud in self.best
        ]
        return min(found, key=lambda neighbour: neighbour.distance)


def nearest_training_shapes(samples: Sequence[Cloud], train: Path) -> Neighbours:
    """For every sample the nearest shape of its category in a training set (of all where a category is unknown).

    The training set passes by once, one shape at a time.

    Args:
        samples: In the units of the training set.
        train: A data set; of one with splits the part "train".

    Raises:
        InputError: There is no shape in it.
    """
    queries = [_Query(cloud, _coarse(cloud)) for cloud in map(_thinned, samples)]
    probes: list[_Query] = []
    result = Neighbours()
    for number, cloud in enumerate(_training_shapes(train)):
        coarse = _coarse(cloud)
        for query in [*queries, *probes]:
            if _comparable(query.cloud, cloud):
                query.consider(number, cloud, coarse)
        if sum(probe.cloud.category == cloud.category for probe in probes) < _PROBES:
            probe = _Query(cloud, coarse)
            for other in probes:  # the earlier ones of its category are all probes themselves
                if _comparable(cloud, other.cloud):
                    probe.consider(number, other.cloud, other.coarse)
            probes.append(probe)
        result.searched += 1
    if not result.searched:
        raise InputError("holds no training shape", where=str(train))
    result.of = {query.cloud.id: near for query in queries if (near := query.nearest())}
    result.usual = [near.distance for near in _found(probes)]
    return result


def _found(queries: Iterable[_Query]) -> Iterator[Neighbour]:
    return (near for query in queries if (near := query.nearest()))


def _training_shapes(train: Path) -> Iterator[Cloud]:
    split = "train" if any(part.split == "train" for part in find_splits(train)) else None
    for cloud in read_clouds(train, split=split):
        if not isinstance(cloud, Rejected):
            yield _thinned(cloud)


def _comparable(one: Cloud, other: Cloud) -> bool:
    return not one.category or not other.category or one.category == other.category


def _thinned(cloud: Cloud) -> Cloud:
    points = chosen_points(cloud, NUM_POINTS)
    return Cloud(id=cloud.id, points=points, category=cloud.category, source=cloud.source)


def _coarse(cloud: Cloud) -> PointTree:
    return PointTree(chosen_points(cloud, _COARSE))
