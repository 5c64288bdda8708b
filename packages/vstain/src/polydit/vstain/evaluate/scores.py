"""The figures of a set of tiles, each with an interval from drawing the images anew (bootstrap, Efron 1979)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from jaxtyping import Float64, Int

from polydit.core.figure import Measure
from polydit.vstain.evaluate.rules import RULES, Rule
from polydit.vstain.evaluate.tiles import TileScores, column

DRAWS: Final = 1000
FEWEST: Final = 10
"""Images below which there is no interval: too few to be drawn from."""

Columns = Mapping[str, Float64[np.ndarray, " tiles"]]


def scores_of(tiles: Sequence[TileScores]) -> tuple[Measure, ...]:
    """All figures of a set.

    Args:
        tiles: Of all images and slides; those of one item stay together when the items are drawn anew.
    """
    columns = {name: column(tiles, name) for rule in RULES for name in rule.needs}
    again = [
        [_value(rule, {name: values[draw] for name, values in columns.items()}) for rule in RULES]
        for draw in _draws([tile.item for tile in tiles])
    ]
    return tuple(
        Measure(
            name=rule.name,
            value=_value(rule, columns),
            unit=rule.unit,
            count=len(_known(rule, columns)[0]),
            method=rule.method,
            interval=_interval([values[number] for values in again]),
        )
        for number, rule in enumerate(RULES)
    )


def _known(rule: Rule, columns: Columns) -> list[Float64[np.ndarray, " n"]]:
    """What a rule needs, of the tiles of which all of it is known."""
    needed = np.stack([columns[name] for name in rule.needs])
    return list(needed[:, np.isfinite(needed).all(axis=0)])


def _value(rule: Rule, columns: Columns) -> float | None:
    known = _known(rule, columns)
    value = rule.of(*known) if known[0].size else float("nan")
    return float(value) if np.isfinite(value) else None


def _interval(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Where 95 % of the values lie that came from images drawn anew."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def _draws(items: Sequence[str]) -> Iterator[Int[np.ndarray, " drawn"]]:
    """Numbers of the tiles of as many items, drawn with replacement; none of few items."""
    names, group = np.unique(items, return_inverse=True)
    if len(names) < FEWEST:
        return
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    generator = np.random.default_rng(0)
    for _ in range(DRAWS):
        drawn = generator.integers(len(names), size=len(names))
        yield np.concatenate([members[number] for number in drawn])
