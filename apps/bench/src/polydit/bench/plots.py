"""The rounds of a measurement as curves: whether a ratio is steady shows at a glance."""

from __future__ import annotations

from collections.abc import Sequence

from polydit.bench.rows import Row
from polydit.core.report.plots import line_plot


def rounds_plot(row: Row) -> str | None:
    """Both sides' seconds by round as an SVG picture; None for a row without rounds."""
    lines = {name: _numbers(row.details.get(name)) for name in ("ours", "plain")}
    rounds = min(map(len, lines.values()))
    if rounds < 2:
        return None
    return line_plot(
        range(1, rounds + 1), lines, x_label="round", y_label="seconds", title=row.key, log_y=False
    )


def _numbers(values: object) -> Sequence[float]:
    return values if isinstance(values, (list, tuple)) else ()
