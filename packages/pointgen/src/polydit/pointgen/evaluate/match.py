"""Two sets of clouds that may be compared: the same categories, as many clouds, the same points, the same units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32

from polydit.core.errors import InputError
from polydit.pointgen.cloud import Cloud, Rejected

LARGEST_RATIO: Final = 1.5
"""Of the median extents of two sets; beyond it they are in different units."""

LARGEST_SHIFT: Final = 0.5
"""Of the median centres, in median extents."""

NO_CATEGORY: Final = "all"

Clouds = Float32[np.ndarray, "clouds n 3"]
ByCategory = dict[str, list[Cloud]]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """The clouds of one category, samples first.

    Args:
        clouds: All of them.
        ids: Their names.
        is_reference: Which of them are references.
    """

    clouds: Clouds
    ids: Sequence[str]
    is_reference: Bool[np.ndarray, " clouds"]

    @property
    def num_pairs(self) -> int:
        """Pairs of clouds."""
        return len(self.clouds) * (len(self.clouds) - 1) // 2


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """Both sets by category.

    Args:
        categories: In alphabetical order.
        num_points: Of every cloud.
        rejected: What could not be read of either set.
    """

    categories: Mapping[str, Pair]
    num_points: int
    rejected: tuple[Rejected, ...]


def match_sets(
    samples: Iterable[Cloud | Rejected],
    references: Iterable[Cloud | Rejected],
    *,
    normalise: bool = False,
    limit: int | None = None,
) -> Matched:
    """Brings samples and references together, or says why they do not fit.

    Args:
        samples: Their categories decide which are evaluated; clouds without one take that of the references if
            these have only one.
        references: What the samples are measured against.
        normalise: Bring each cloud into the unit box.
        limit: At most this many of each category and set, and as many of both; None takes all.

    Raises:
        InputError: A set is empty, lacks a category, has another number of clouds or of points, or is in other units.
    """
    rejected: list[Rejected] = []
    ours = _by_category(samples, rejected, "sample")
    theirs = _by_category(references, rejected, "reference")
    if set(ours) == {""}:
        ours = _adopted(ours, theirs)
    if missing := sorted(set(ours) - set(theirs)):
        raise InputError(
            f"the reference set has no {' and no '.join(name or 'clouds without a category' for name in missing)}: "
            f"its categories are {_names(theirs)}, those of the samples {_names(ours)}",
            hint="Choose with --category what both have.",
        )
    names = sorted(ours)
    theirs = {name: theirs[name] for name in names}
    ours, theirs = _as_many(ours, theirs, limit)
    num_points = _num_points(ours, theirs)
    if normalise:
        ours, theirs = _all_boxed(ours), _all_boxed(theirs)
    pairs = {name or NO_CATEGORY: _pair(ours[name], theirs[name]) for name in names}
    for name, pair in pairs.items():
        _check_units(name, pair)
    return Matched(pairs, num_points, tuple(rejected))


def _by_category(entries: Iterable[Cloud | Rejected], rejected: list[Rejected], what: str) -> ByCategory:
    found: ByCategory = {}
    refused: list[Rejected] = []
    for entry in entries:
        if isinstance(entry, Rejected):
            refused.append(entry)
        else:
            found.setdefault(entry.category, []).append(entry)
    rejected += refused
    if not found:
        why = f": {refused[0].source}: {refused[0].reason}" if refused else ""
        raise InputError(f"there is no {what} to evaluate{why}")
    return found


def _adopted(ours: ByCategory, theirs: ByCategory) -> ByCategory:
    """Samples of a plain folder have no category: they are of the one that the references have."""
    if len(theirs) == 1:
        return {next(iter(theirs)): ours[""]}
    raise InputError(
        f"the samples have no category, and the reference set has several: {_names(theirs)}",
        hint="Say which with --category.",
    )


def _as_many(ours: ByCategory, theirs: ByCategory, limit: int | None) -> tuple[ByCategory, ByCategory]:
    """1-NNA, COV and MMD all depend on the sizes of the sets, and 50 % is the ideal only for equal ones."""
    counts = {name: (len(ours[name]), len(theirs[name])) for name in ours}
    if limit is not None:
        keep = {name: min(limit, *pair) for name, pair in counts.items()}
        return _first(ours, keep), _first(theirs, keep)
    unequal = {name: pair for name, pair in counts.items() if pair[0] != pair[1]}
    if unequal:
        text = ", ".join(f"{name or NO_CATEGORY} {a} against {b}" for name, (a, b) in unequal.items())
        raise InputError(
            f"the sets differ in their number of clouds (samples against references): {text}",
            expected="as many samples as references, as 1-NNA needs",
            hint=f"Compare the first of each with: --limit {min(map(min, unequal.values()))}",
        )
    return ours, theirs


def _first(sets: ByCategory, counts: Mapping[str, int]) -> ByCategory:
    return {name: clouds[: counts[name]] for name, clouds in sets.items()}


def _num_points(ours: ByCategory, theirs: ByCategory) -> int:
    counts = [{cloud.num_points for clouds in sets.values() for cloud in clouds} for sets in (ours, theirs)]
    if len(counts[0] | counts[1]) == 1:
        return next(iter(counts[0]))
    both = " against ".join(_span(numbers) for numbers in counts)
    raise InputError(
        f"the clouds differ in their number of points (samples against references): {both}",
        hint=f"Compare as many of each with: --points {min(counts[0] | counts[1])}",
    )


def _span(numbers: set[int]) -> str:
    return str(min(numbers)) if len(numbers) == 1 else f"{min(numbers)} to {max(numbers)}"


def _all_boxed(sets: ByCategory) -> ByCategory:
    return {name: [_boxed(cloud) for cloud in clouds] for name, clouds in sets.items()}


def _boxed(cloud: Cloud) -> Cloud:
    """Centre of the box at the origin, longest side 1."""
    low, high = cloud.points.min(0), cloud.points.max(0)
    points = (cloud.points - (low + high) / 2) / (high - low).max()
    return Cloud(id=cloud.id, points=points, category=cloud.category, source=cloud.source)


def _pair(ours: Sequence[Cloud], theirs: Sequence[Cloud]) -> Pair:
    both = [*ours, *theirs]
    is_reference = np.arange(len(both)) >= len(ours)
    return Pair(np.stack([cloud.points for cloud in both]), [cloud.id for cloud in both], is_reference)


def _check_units(name: str, pair: Pair) -> None:
    boxes = [_median_box(pair.clouds[members]) for members in (~pair.is_reference, pair.is_reference)]
    (our_centre, our_extent), (centre, extent) = boxes
    hint = "Bring every cloud of both into the unit box with: --normalise unit-box"
    if not 1 / LARGEST_RATIO <= our_extent / extent <= LARGEST_RATIO:
        raise InputError(
            f"the sets are normalised differently: the median extent of the samples is {our_extent:.3g}, "
            f"that of the references {extent:.3g}",
            where=name,
            expected=f"a ratio of at most {LARGEST_RATIO}",
            hint=hint,
        )
    shift = float(np.abs(our_centre - centre).max())
    if shift > LARGEST_SHIFT * extent:
        raise InputError(
            f"the sets are centred differently: the samples at {_place(our_centre)}, the references at "
            f"{_place(centre)}, with an extent of {extent:.3g}",
            where=name,
            hint=hint,
        )


def _median_box(clouds: Clouds) -> tuple[Float32[np.ndarray, " 3"], float]:
    """Median centre, and median longest side, of the clouds' boxes."""
    low, high = clouds.min(1), clouds.max(1)
    return np.median((low + high) / 2, axis=0), float(np.median((high - low).max(1)))


def _place(point: Float32[np.ndarray, " 3"]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in point.tolist()) + ")"


def _names(sets: ByCategory) -> str:
    return ", ".join(name or "none" for name in sorted(sets))
