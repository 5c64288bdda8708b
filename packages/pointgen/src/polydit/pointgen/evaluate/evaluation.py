"""Clouds in, figures out: per category, on the full sets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from jaxtyping import Float32

from polydit.core.figure import Figure, Measure
from polydit.pointgen.cloud import Cloud, Rejected
from polydit.pointgen.evaluate.distance import Distance
from polydit.pointgen.evaluate.emd import EmdVariant
from polydit.pointgen.evaluate.match import Matched, match_sets
from polydit.pointgen.evaluate.scores import Neighbours, jensen_shannon, neighbour_scores
from polydit.pointgen.evaluate.tiles import TileStore, nearest_distances

Metric = Literal["cd", "emd", "jsd"]
EMD_POINTS: Final = 512
"""Points of an exact assignment: 23 ms per pair; 2048 take over a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NearestRow:
    """A sample and the reference that is nearest to it.

    Attributes:
        category: Of both.
        sample: Id.
        reference: Id.
        distance: Between the two.
        metric: Which distance: "cd" or "emd".
    """

    category: str
    sample: str
    reference: str
    distance: float
    metric: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What `evaluate_clouds` found.

    Attributes:
        categories: Category to its figures, in the order in which they are read.
        nearest: A row per sample and metric.
        rejected: What could not be read; no figure counts it.
    """

    categories: Mapping[str, tuple[Figure | Measure, ...]]
    nearest: tuple[NearestRow, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    def get(self, category: str, name: str) -> Figure | Measure:
        """One figure. Raises KeyError if there is none of that name."""
        for figure in self.categories[category]:
            if figure.name == name:
                return figure
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """What figures.json holds."""
        return {
            "categories": {
                category: {figure.name: figure.to_json() for figure in figures}
                for category, figures in self.categories.items()
            },
            "rejected": len(self.rejected),
        }

    def files(self) -> dict[str, bytes]:
        """As files: figures.json, and nearest.csv and rejected.csv unless they are empty."""
        texts = {"figures.json": json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"}
        tables: dict[str, Sequence[NearestRow | Rejected]] = {
            "nearest": self.nearest,
            "rejected": self.rejected,
        }
        for name, rows in tables.items():
            if rows:
                texts[f"{name}.csv"] = _csv(rows)
        return {name: text.encode() for name, text in texts.items()}


def evaluate_clouds(
    samples: Iterable[Cloud | Rejected],
    references: Iterable[Cloud | Rejected],
    *,
    metrics: Sequence[Metric] = ("cd", "jsd"),
    emd: EmdVariant = "exact-l2",
    emd_points: int = EMD_POINTS,
    normalise: bool = False,
    limit: int | None = None,
    workers: int = 1,
    device: str = "cpu",
    tiles: Path | None = None,
    on_start: Callable[[int], object] | None = None,
    on_pairs: Callable[[int], object] | None = None,
) -> Figures:
    """Measures generated clouds against references: 1-NNA, COV, MMD and JSD of each category.

    Args:
        samples: Generated clouds.
        references: Clouds that the model has not seen, as many of each category.
        metrics: "cd" and "emd" give 1-NNA, COV and MMD; "jsd" needs no distances.
        emd: Which of the three.
        emd_points: Points drawn of each cloud for the EMD, the same ones whenever they are drawn.
        normalise: Bring each cloud into the unit box first, as LION does for its ShapeNet-Vol tables.
        limit: At most this many clouds of each category and set, and as many of both.
        workers: Processes side by side; for more than one a script needs `if __name__ == "__main__":`.
        device: Where torch computes CD and the kernel's EMD; "cpu" takes trees and worker processes for CD.
        tiles: Folder where finished tiles are kept, so that a killed evaluation goes on; None keeps nothing.
        on_start: Called once with the number of pairs of clouds in all.
        on_pairs: Called with a number of pairs whenever so many are settled.

    Raises:
        InputError: The sets do not fit together: categories, number of clouds or points, normalisation.
    """
    matched = match_sets(samples, references, normalise=normalise, limit=limit)
    distances = [_distance(metric, matched, emd, emd_points, device) for metric in metrics if metric != "jsd"]
    if on_start:
        on_start(len(distances) * sum(pair.num_pairs for pair in matched.categories.values()))
    found: dict[str, tuple[Figure | Measure, ...]] = {}
    nearest: list[NearestRow] = []
    for category, pair in matched.categories.items():
        figures: list[Figure | Measure] = []
        for distance in distances:
            clouds = _drawn(pair.clouds, distance.num_points)
            neighbours = Neighbours(
                nearest_distances(
                    clouds,
                    pair.is_reference,
                    distance,
                    workers=workers,
                    store=TileStore.of(tiles, clouds, distance) if tiles else None,
                    on_pairs=on_pairs,
                ),
                pair.is_reference,
            )
            figures += neighbour_scores(neighbours, distance.metric, distance.method)
            nearest += _nearest_rows(category, pair.ids, neighbours, distance.metric)
        if "jsd" in metrics:
            figures.append(jensen_shannon(pair.clouds[~pair.is_reference], pair.clouds[pair.is_reference]))
        found[category] = tuple(figures)
    return Figures(categories=found, nearest=tuple(nearest), rejected=matched.rejected)


def _distance(metric: Metric, matched: Matched, emd: EmdVariant, emd_points: int, device: str) -> Distance:
    if metric == "cd":
        return Distance("cd", matched.num_points, device=device)
    return Distance("emd", min(emd_points, matched.num_points), variant=emd, device=device)


def _drawn(clouds: Float32[np.ndarray, "clouds n 3"], count: int) -> Float32[np.ndarray, "clouds count 3"]:
    """`count` points of each cloud; a file may list its points in order, so they are drawn."""
    if count == clouds.shape[1]:
        return clouds
    chosen = [np.random.default_rng(0).choice(len(cloud), count, replace=False) for cloud in clouds]
    return np.stack([cloud[places] for cloud, places in zip(clouds, chosen, strict=True)])


def _nearest_rows(category: str, ids: Sequence[str], neighbours: Neighbours, metric: str) -> list[NearestRow]:
    of_sets = [np.flatnonzero(mask).tolist() for mask in (~neighbours.is_reference, neighbours.is_reference)]
    found = zip(
        of_sets[0], neighbours.reference_of_sample.tolist(), neighbours.to_reference.tolist(), strict=True
    )
    return [
        NearestRow(
            category=category, sample=ids[i], reference=ids[of_sets[1][j]], distance=distance, metric=metric
        )
        for i, j, distance in found
    ]


def _csv(rows: Sequence[NearestRow | Rejected]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(rows[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()
