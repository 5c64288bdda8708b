"""Statistics of features: extremes, mean, deviation and quantiles, of one episode or of all.

Numbers are measured exactly over the whole data. Pictures are counted into 256 bins per colour, which are exact too and
add up over episodes; their statistics have the shape (3, 1, 1) and values in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from polydit.core.errors import InputError
from polydit.robopolicy.data.features import NUMBERS, Feature

QUANTILES: Mapping[str, float] = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
NAMES = ("min", "max", "mean", "std", "count", *QUANTILES)
MAX_PICTURES = 100  # of one episode; more would not change its statistics visibly

Row = Mapping[str, np.ndarray]  # statistics of one feature by name


class Statistics(Mapping[str, Row]):
    """Statistics by feature: {"action": {"min": ..., "mean": ..., ...}, ...}, all arrays float64."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = {
            key: {name: np.atleast_1d(np.asarray(values, dtype=np.float64)) for name, values in row.items()}
            for key, row in rows.items()
        }

    def __getitem__(self, key: str) -> Row:
        return self._rows[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def to_json(self, features: Mapping[str, Feature] | None = None) -> dict[str, dict[str, Any]]:
        """As stats.json holds it; extremes of whole numbers stay whole where `features` says what they are."""
        known = features or {}
        return {
            key: {name: typed(values, name, known.get(key)).tolist() for name, values in row.items()}
            for key, row in self._rows.items()
        }

    @classmethod
    def from_json(cls, content: Any, *, where: str = "statistics") -> Statistics:
        """From stats.json.

        Raises:
            InputError: It is not a table of numbers by feature and name.
        """
        try:
            return cls(
                {key: {name: _numbers(value) for name, value in row.items()} for key, row in content.items()}
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError("not statistics by feature", where=where, expected=", ".join(NAMES)) from error

    def check(self, features: Mapping[str, Feature], *, where: str) -> None:
        """Whether the statistics of `features` fit them; a feature without any is no fault.

        Raises:
            InputError: A shape differs, or a number is not finite; the message names feature, statistic and shapes.
        """
        for key, feature in features.items():
            for name, values in self._rows.get(key, {}).items():
                expected = (1,) if name == "count" else feature.shape
                if values.shape != expected:
                    problem = f"the statistic {name} of {key} has the shape {list(values.shape)}"
                    raise InputError(problem, where=where, expected=f"{list(expected)} as its feature")
                if not np.isfinite(values).all():
                    raise InputError(f"the statistic {name} of {key} is no finite number", where=where)


def _numbers(value: Any) -> np.ndarray:
    numbers = np.asarray(value, dtype=np.float64)
    if numbers.dtype != np.float64 or numbers.size > 1 << 16:
        raise ValueError
    return numbers


def typed(values: np.ndarray, name: str, feature: Feature | None) -> np.ndarray:
    """A statistic in the type that LeRobot keeps it in: counts whole, extremes like the feature, the rest float64."""
    if name == "count":
        return values.astype(np.int64)
    if name in ("min", "max") and feature is not None and feature.dtype in NUMBERS:
        kind = np.dtype(feature.dtype).kind
        return values.astype({"b": bool, "i": np.int64, "u": np.int64}.get(kind, np.float64))
    return values


def number_statistics(values: np.ndarray) -> Row:
    """Statistics of rows of numbers (t, ..., d), or (t,); d numbers each, more axes count as more rows.

    Raises:
        InputError: There is no row.
    """
    if not len(values):
        raise InputError("there are no frames to take statistics of")
    rows = (values if values.ndim > 1 else values[:, None]).astype(np.float64)
    rows = rows.reshape(-1, rows.shape[-1])
    quantiles = np.quantile(rows, list(QUANTILES.values()), axis=0)
    return {
        "min": rows.min(axis=0),
        "max": rows.max(axis=0),
        "mean": rows.mean(axis=0),
        "std": rows.std(axis=0),
        "count": np.array([len(values)], dtype=np.float64),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


class PictureCounts:
    """How often each of the 256 values occurs in each colour, over many pictures.

    Args:
        counts: What was counted so far.
        pictures: Of how many pictures.
    """

    def __init__(self, counts: Int[np.ndarray, "3 256"] | None = None, pictures: int = 0) -> None:
        self.counts = np.zeros((3, 256), dtype=np.int64) if counts is None else counts
        self.pictures = pictures

    def add(self, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Count one picture."""
        self.counts += np.stack([np.bincount(picture[..., c].reshape(-1), minlength=256) for c in range(3)])
        self.pictures += 1

    def __add__(self, other: PictureCounts) -> PictureCounts:
        return PictureCounts(self.counts + other.counts, self.pictures + other.pictures)

    def statistics(self) -> Row:
        """Statistics per colour, (3, 1, 1), values in [0, 1].

        Raises:
            InputError: No picture was counted.
        """
        if not self.pictures:
            raise InputError("there are no pictures to take statistics of")
        values = np.arange(256) / 255.0
        share = self.counts / self.counts.sum(axis=1, keepdims=True)
        mean = share @ values
        cumulative = np.cumsum(share, axis=1)
        row = {
            "min": values[np.argmax(self.counts > 0, axis=1)],
            "max": values[255 - np.argmax(self.counts[:, ::-1] > 0, axis=1)],
            "mean": mean,
            "std": np.sqrt(np.maximum(share @ values**2 - mean**2, 0.0)),
            **{name: values[np.argmax(cumulative >= q - 1e-12, axis=1)] for name, q in QUANTILES.items()},
        }
        shaped = {name: column.reshape(3, 1, 1) for name, column in row.items()}
        return {name: shaped.get(name, np.array([self.pictures], dtype=np.float64)) for name in NAMES}


def sampled(count: int) -> Int[np.ndarray, " n"]:
    """Which of `count` pictures of an episode are counted: all, or 100 that are evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_PICTURES)).round().astype(np.int64))


def counted(frames: Iterable[np.ndarray], count: int, counts: PictureCounts) -> Iterator[np.ndarray]:
    """Passes pictures on and counts some of them on the way."""
    chosen = set(sampled(count).tolist())
    for index, picture in enumerate(frames):
        if index in chosen:
            counts.add(picture)
        yield picture


def aggregate(rows: Sequence[Row]) -> Row:
    """Statistics of all episodes from those of each, as LeRobot adds them up.

    Extremes, mean, deviation and count are exact. Quantiles cannot be had from quantiles: their means, weighted by the
    number of frames, are an estimate; they are left out if an episode has none.

    Raises:
        InputError: There are none.
    """
    if not rows:
        raise InputError("there are no episodes to take statistics of")
    column: dict[str, Float[np.ndarray, "e ..."]] = {
        name: np.stack([np.asarray(row[name], dtype=np.float64) for row in rows])
        for name in NAMES
        if all(name in row for row in rows)
    }
    weight = (column["count"] / column["count"].sum()).reshape(-1, *[1] * (column["mean"].ndim - 1))
    mean = (weight * column["mean"]).sum(axis=0)
    variance = (weight * (column["std"] ** 2 + (column["mean"] - mean) ** 2)).sum(axis=0)
    return {
        "min": column["min"].min(axis=0),
        "max": column["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": column["count"].sum(axis=0),
        **{name: (weight * column[name]).sum(axis=0) for name in QUANTILES if name in column},
    }
