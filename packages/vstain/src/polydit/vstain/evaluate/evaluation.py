"""Pairs of virtual and real stains in, figures out."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, Any, Final

from polydit.core.errors import InputError
from polydit.core.figure import Measure
from polydit.core.report import counted
from polydit.vstain.evaluate.inputs import Rejected
from polydit.vstain.evaluate.match import Matched, Pair
from polydit.vstain.evaluate.pictures import Picture, open_mask, open_picture
from polydit.vstain.evaluate.scores import scores_of
from polydit.vstain.evaluate.tiles import Tile, TileScores, score_tile

if TYPE_CHECKING:
    from polydit.vstain.evaluate.features import FeatureNetwork, TileFeatures

DERIVED: Final = "derived from the stain by its DAB"


@dataclass(slots=True, kw_only=True)
class Measured:
    """What was measured of one run.

    Attributes:
        tiles: In the order of the run.
        features: Of each tile, if a network for them was given.
        glass: How many tiles of slides show glass in both.
        masks: How many images had which kind of mask.
        reference_masks: The same of their references.
        rejected: What could not be measured; no figure counts it.
        left_out: How many items were not measured, by the reason.
        scores: The figures.
    """

    tiles: list[TileScores] = field(default_factory=list)
    features: list[TileFeatures] = field(default_factory=list)
    glass: int = 0
    masks: Counter[str] = field(default_factory=Counter)
    reference_masks: Counter[str] = field(default_factory=Counter)
    rejected: list[Rejected] = field(default_factory=list)
    left_out: Mapping[str, int] = field(default_factory=dict)
    scores: tuple[Measure, ...] = ()

    def get(self, name: str) -> Measure:
        """One figure. Raises KeyError if there is none of that name."""
        for score in self.scores:
            if score.name == name:
                return score
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Figures, counts, and where the masks come from."""
        return {
            "figures": {score.name: score.to_json() for score in self.scores},
            "items": len({tile.item for tile in self.tiles}),
            "tiles": len(self.tiles),
            "glass_tiles": self.glass,
            "masks": dict(self.masks),
            "reference_masks": dict(self.reference_masks),
            "left_out": dict(self.left_out),
            "rejected": len(self.rejected),
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate_stains` found.

    Attributes:
        run: Of the virtual stains.
        baseline: Of the other run, over the same places; None if there is none.
    """

    run: Measured
    baseline: Measured | None = None

    @property
    def rejected(self) -> list[Rejected]:
        """What could not be measured of either."""
        return [*self.run.rejected, *(self.baseline.rejected if self.baseline else ())]

    def notes(self) -> list[str]:
        """What a person must know to read the figures: where the masks come from, and what does not count."""
        run = self.run
        runs = [("run", run.masks), ("references", run.reference_masks)]
        runs += [("baseline", self.baseline.masks)] if self.baseline else []
        return [
            *(
                f"Masks of the {whose}: {kind} ({count:,})"
                for whose, masks in runs
                for kind, count in masks.items()
            ),
            *(f"{counted(count, 'item')} left out: {reason}" for reason, count in run.left_out.items()),
            *([f"{counted(run.glass, 'tile')} of glass left out"] if run.glass else []),
        ]

    def to_json(self) -> dict[str, Any]:
        """What figures.json holds."""
        return {**self.run.to_json(), "baseline": self.baseline.to_json() if self.baseline else None}

    def files(self) -> dict[str, bytes]:
        """As files: figures.json, a line per tile in tiles.csv and baseline.csv, and rejected.csv unless empty."""
        texts = {"figures.json": json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"}
        tables: dict[str, list[dict[str, Any]]] = {
            "tiles.csv": [tile.row() for tile in self.run.tiles],
            "baseline.csv": [tile.row() for tile in self.baseline.tiles] if self.baseline else [],
            "rejected.csv": [asdict(entry) for entry in self.rejected],
        }
        texts |= {name: _csv(rows) for name, rows in tables.items() if rows}
        return {name: text.encode() for name, text in texts.items()}


def evaluate_stains(
    runs: Sequence[Matched],
    *,
    features: FeatureNetwork | None = None,
    on_item: Callable[[int], object] | None = None,
) -> Evaluation:
    """Measures virtual stains against real ones of the same places.

    An image is measured whole, one of more than 2048² pixels in tiles, one at a time. Of two runs only the items count
    that could be measured of both.

    Args:
        runs: What `match_runs` found: a run, or a run and its baseline.
        features: A network for distances in its features; None = none are measured.
        on_item: Called with a number of items whenever so many are measured.
    """
    measured = [_measure(matched, features, on_item) for matched in runs]
    common = set.intersection(*({tile.item for tile in found.tiles} for found in measured))
    for found in measured:
        counts = [tile.item in common for tile in found.tiles]
        found.tiles, found.features = (
            list(compress(found.tiles, counts)),
            list(compress(found.features, counts)),
        )
        found.scores = (*scores_of(found.tiles), *(features.measures(found.features) if features else ()))
    return Evaluation(*measured)


def _measure(
    matched: Matched, features: FeatureNetwork | None, on_item: Callable[[int], object] | None
) -> Measured:
    found = Measured(rejected=list(matched.rejected), left_out=matched.left_out())
    for pair in matched.pairs.values():
        try:
            tiles = list(_tiles(pair, found, features))
        except InputError as error:
            found.rejected.append(Rejected(error.where or str(pair.virtual.image), error.problem))
        else:
            found.tiles += [scores for scores, _ in tiles]
            found.features += [seen for _, seen in tiles if seen is not None]
            found.masks["predicted" if pair.virtual.mask else DERIVED] += 1
            found.reference_masks["of the data set" if pair.reference.mask else DERIVED] += 1
        if on_item:
            on_item(1)
    return found


def _tiles(
    pair: Pair, found: Measured, features: FeatureNetwork | None
) -> Iterator[tuple[TileScores, TileFeatures | None]]:
    """The tiles of an item, read and measured one at a time."""
    virtual, reference = pair
    with (
        open_picture(virtual.image) as ours,
        open_picture(reference.image, mpp=ours.mpp) as real,
        open_mask(virtual.mask) as our_mask,
        open_mask(reference.mask) as real_mask,
    ):
        for other, path in ((real, reference.image), (our_mask, virtual.mask), (real_mask, reference.mask)):
            if other is not None and other.size != ours.size:
                problem = f"{_size(other.size)} pixels, but its virtual stain has {_size(ours.size)}"
                raise InputError(problem, where=str(path))
        for window in ours.tiles():
            tile, truth = _tile(ours, our_mask, window), _tile(real, real_mask, window)
            if ours.is_slide and tile.is_glass and truth.is_glass:
                found.glass += 1
            else:
                seen = features.pair(tile.image, truth.image) if features else None
                yield score_tile(tile, truth, item=reference.name, x=window[0], y=window[1]), seen


def _tile(picture: Picture, mask: Picture | None, window: tuple[int, int, int, int]) -> Tile:
    return Tile(picture.window(*window), mask.window(*window) if mask else None)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
