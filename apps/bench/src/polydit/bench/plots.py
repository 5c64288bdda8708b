"""Rows as pictures: the rounds of a ratio, whose steadiness shows at a glance, and the fronts of caches."""

from __future__ import annotations

import math
from collections.abc import Sequence

from polydit.bench.rows import Row
from polydit.core.report.plots import line_plot


def row_plot(row: Row) -> str | None:
    """The picture that fits a row; None if it has nothing to draw."""
    return front_plot(row) or rounds_plot(row)


def rounds_plot(row: Row) -> str | None:
    """Both sides' seconds by round as an SVG picture; None for a row without rounds."""
    lines = {name: _numbers(row.details.get(name)) for name in ("ours", "plain")}
    rounds = min(map(len, lines.values()))
    if rounds < 2:
        return None
    return line_plot(
        range(1, rounds + 1), lines, x_label="round", y_label="seconds", title=row.key, log_y=False
    )


def front_plot(row: Row) -> str | None:
    """Error against time of the best settings of each family as an SVG picture; None for a row without fronts."""
    fronts = row.details.get("fronts")
    if not fronts:
        return None
    times = sorted({time for points in fronts.values() for time, _ in points})
    lines = {name: [dict(points).get(time, math.nan) for time in times] for name, points in fronts.items()}
    return line_plot(
        times,
        lines,
        x_label="time over the uncached run",
        y_label="distance to it",
        title=row.key,
        log_y=True,
    )


def _numbers(values: object) -> Sequence[float]:
    return values if isinstance(values, (list, tuple)) else ()
