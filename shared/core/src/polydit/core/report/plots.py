"""Plots as inline SVG for light and dark pages: distributions side by side, bars by category, curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from polydit.core.report.markup import Attribute, Markup, join, tag

# Mid tones with a contrast of at least 3:1 on white and on near-black. Order: ours, the reference, others.
COLOURS = ("#4585d6", "#c9741c", "#3f9a68", "#b0589e", "#8a7f2d")

_WIDTH, _HEIGHT = 520, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 508, 34, 216  # the plotting area
_MOST_BINS = 60
_MOST_STRETCHES = 400

# Whole numbers are welcome too; the type checker of the tests takes float at its word.
Number: TypeAlias = int | float
Range: TypeAlias = tuple[Number, Number]
Ticks: TypeAlias = Sequence[tuple[Number, str]]


def histogram(counts: Mapping[str, Mapping[int, Number]], *, title: str, x_label: str) -> Markup:
    """Distributions of a whole number, each as fractions of its own total.

    Args:
        counts: Per series, how often each number occurs. The first series is drawn as filled bars, the others
            as outlines, so that they can be told apart without colour. Wide ranges are binned.
        title: Heading, and what a screen reader says.
        x_label: What is counted.

    Returns:
        A standalone SVG element.
    """
    values = [value for series in counts.values() for value in series]
    first, last = (min(values), max(values)) if values else (0, 0)
    width = math.ceil((last - first + 1) / _MOST_BINS)
    starts = range(first, last + 1, width)
    shares = {name: _shares(_binned(series, starts)) for name, series in counts.items()}
    ticks = [(number, _number(number)) for number in _round_numbers(first, last, 12) if number % 1 == 0]
    axes = _share_axes(shares, (first - 0.5, starts[-1] + width - 0.5), ticks, title, x_label)
    edges = [start - 0.5 for start in (*starts, starts[-1] + width)]
    steps = [_steps(axes, edges, heights, k) for k, heights in enumerate(shares.values())]
    return axes.svg(steps, list(counts))


def bar_plot(counts: Mapping[str, Mapping[str, Number]], *, title: str, x_label: str) -> Markup:
    """Shares of categories, one bar per series side by side.

    Args:
        counts: Per series, how often each category occurs; categories keep the order of their first mention.
        title: Heading, and what a screen reader says.
        x_label: What the categories are.

    Returns:
        A standalone SVG element.
    """
    categories = list(dict.fromkeys(name for series in counts.values() for name in series))
    shares = {name: _shares([series.get(c, 0) for c in categories]) for name, series in counts.items()}
    ticks = [(position + 0.5, name) for position, name in enumerate(categories)]
    axes = _share_axes(shares, (0.0, max(1, len(categories))), ticks, title, x_label)
    bars = [_bars(axes, heights, k, len(shares)) for k, heights in enumerate(shares.values())]
    return axes.svg(bars, list(counts))


def line_plot(
    x: Sequence[Number],
    lines: Mapping[str, Sequence[Number]],
    *,
    x_label: str,
    y_label: str,
    title: str = "",
    log_y: bool = False,
) -> Markup:
    """Curves, such as the loss over the steps of a training run.

    Args:
        x: Positions in rising order, shared by all curves.
        lines: Values of each curve. One that is not finite (or, with log_y, not positive) is left out, so a
            curve may have values at some positions only. A long curve is drawn as the means of short
            stretches, with a band from the lowest to the highest value of each.
        x_label: Name of the x axis.
        y_label: Name of the y axis.
        title: Heading, and what a screen reader says; made from the labels if empty.
        log_y: Powers of ten on the y axis.

    Returns:
        A standalone SVG element; written to a file, it is a picture of its own.
    """
    curves = {name: _stretches(x, values, log_y) for name, values in lines.items()}
    drawn = [stretch for curve in curves.values() for stretch in curve] or [_Stretch(0, 0, 0, 0)]
    low, high = min(s.low for s in drawn), max(s.high for s in drawn)
    margin = 0.06 * (high - low) or 0.5
    low, high = low - margin, high + margin
    across = (min(s.x for s in drawn), max(s.x for s in drawn))
    levels = _exponents(low, high) if log_y else _round_numbers(low, high)
    axes = _Axes(
        title=title or f"{y_label} by {x_label}",
        x_label=x_label,
        y_label=y_label,
        x=across,
        y=(low, high),
        x_ticks=[(value, _number(value)) for value in _round_numbers(*across)],
        y_ticks=[(level, _number(10**level if log_y else level)) for level in levels],
    )
    return axes.svg([_curve(axes, curve, k) for k, curve in enumerate(curves.values())], list(lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axes:
    """Both axes: their names, ranges and marks, and where a value lies in the picture."""

    title: str
    x_label: str
    y_label: str
    x: Range
    y: Range
    x_ticks: Ticks
    y_ticks: Ticks

    def at_x(self, value: Number) -> Number:
        return _LEFT + (value - self.x[0]) / ((self.x[1] - self.x[0]) or 1) * (_RIGHT - _LEFT)

    def at_y(self, value: Number) -> Number:
        return _BOTTOM - (value - self.y[0]) / ((self.y[1] - self.y[0]) or 1) * (_BOTTOM - _TOP)

    def path(self, points: Iterable[tuple[Number, Number]]) -> str:
        """Path data through the points."""
        places = (f"{self.at_x(x):.1f} {self.at_y(y):.1f}" for x, y in points)
        return "".join(("L" if k else "M") + place for k, place in enumerate(places))

    def svg(self, drawn: Sequence[Markup], names: Sequence[str]) -> Markup:
        """The picture: marks and grid, what was drawn, labels and legend."""
        middle, side = (_LEFT + _RIGHT) / 2, (_TOP + _BOTTOM) / 2
        parts = [
            tag("title", self.title),
            _text(0, 14, self.title, text_anchor="start", font_weight=600, font_size=13),
            *(self._level(value, text) for value, text in self.y_ticks),
            *drawn,
            tag("path", d=f"M{_LEFT} {_BOTTOM}H{_RIGHT}", stroke="currentColor", opacity=0.6),
            *(_text(self.at_x(value), _BOTTOM + 16, text, opacity=0.75) for value, text in self.x_ticks),
            _text(middle, _HEIGHT - 8, self.x_label),
            _text(12, side, self.y_label, transform=f"rotate(-90 12 {side:g})"),
            _legend(names),
        ]
        return tag(
            "svg", *parts, xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            class_="plot", role="img", aria_label=f"{self.title}. Series: {', '.join(names)}",
            font_family="system-ui, sans-serif", font_size=11, fill="currentColor",
        )  # fmt: skip

    def _level(self, value: Number, text: str) -> Markup:
        height = round(self.at_y(value), 1)
        line = tag("path", d=f"M{_LEFT} {height}H{_RIGHT}", stroke="currentColor", opacity=0.13)
        return join(line, _text(_LEFT - 7, height + 3.8, text, text_anchor="end", opacity=0.75))


def _share_axes(
    shares: Mapping[str, Sequence[Number]], x: Range, ticks: Ticks, title: str, x_label: str
) -> _Axes:
    top = 1.08 * max((height for heights in shares.values() for height in heights), default=0.0) or 1.0
    levels = [(value, f"{100 * value:.3g} %") for value in _round_numbers(0.0, top)]
    return _Axes(
        title=title, x_label=x_label, y_label="share", x=x, y=(0.0, top), x_ticks=ticks, y_ticks=levels
    )


class _Stretch(NamedTuple):
    """Neighbouring values of a curve."""

    x: Number
    low: Number
    mean: Number
    high: Number


def _steps(axes: _Axes, edges: Sequence[Number], heights: Sequence[Number], series: int) -> Markup:
    """A histogram as one outline; only that of the first series is filled."""
    tops = [(edge, height) for k, height in enumerate(heights) for edge in edges[k : k + 2]]
    outline = axes.path([(edges[0], 0.0), *tops, (edges[-1], 0.0)])
    colour = COLOURS[series % len(COLOURS)]
    if series == 0:
        return tag("path", d=outline, fill=colour, fill_opacity=0.55)
    return tag("path", d=outline, fill="none", stroke=colour, stroke_width=1.8, stroke_linejoin="round")


def _bars(axes: _Axes, heights: Sequence[Number], series: int, many: int) -> Markup:
    colour, width, floor = COLOURS[series % len(COLOURS)], 0.76 / many, axes.at_y(0)
    bars = []
    for k, height in enumerate(heights):
        left = axes.at_x(k + 0.12 + series * width)
        right = axes.at_x(k + 0.12 + (series + 1) * width) - 1
        bars.append(f"M{left:.1f} {floor:.1f}V{axes.at_y(height):.1f}H{right:.1f}V{floor:.1f}Z")
    opacity = 0.75 if series == 0 else 0.15
    return tag("path", d="".join(bars), fill=colour, stroke=colour, fill_opacity=opacity)


def _curve(axes: _Axes, stretches: Sequence[_Stretch], series: int) -> Markup:
    """The means as a line; where stretches hold several values, their range as a pale band behind it."""
    colour = COLOURS[series % len(COLOURS)]
    dashes = None if series == 0 else f"{6 - min(series, 4)} 3"
    band = axes.path([(s.x, s.high) for s in stretches] + [(s.x, s.low) for s in reversed(stretches)])
    line = axes.path((s.x, s.mean) for s in stretches)
    return join(
        tag("path", d=band, fill=colour, fill_opacity=0.25),
        tag("path", d=line, fill="none", stroke=colour, stroke_width=1.8, stroke_dasharray=dashes),
    )


def _legend(names: Sequence[str]) -> Markup:
    """Names of the series at the right; one series needs none."""
    entries = []
    for series, name in enumerate(names if len(names) > 1 else ()):
        colour, sign = COLOURS[series % len(COLOURS)], "■" if series == 0 else "□"
        entries.append(join("\N{EM SPACE}", tag("tspan", sign, fill=colour), "\N{NO-BREAK SPACE}", name))
    return tag("text", *entries, x=_RIGHT, y=14, text_anchor="end") if entries else Markup("")


def _text(x: Number, y: Number, content: str, **look: Attribute) -> Markup:
    return tag("text", content, x=round(x, 1), y=round(y, 1), **{"text_anchor": "middle", **look})


def _binned(counts: Mapping[int, Number], starts: range) -> list[Number]:
    heights = [0.0] * len(starts)
    for value, count in counts.items():
        heights[(value - starts.start) // starts.step] += count
    return heights


def _shares(counts: Sequence[Number]) -> list[Number]:
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def _stretches(x: Sequence[Number], values: Sequence[Number], log: bool) -> list[_Stretch]:
    """Neighbouring values summed up until there are few enough to draw; a short curve keeps each value."""
    scaled = [math.log10(value) if log and value > 0 else math.nan if log else value for value in values]
    known = [(place, value) for place, value in zip(x, scaled, strict=True) if math.isfinite(value)]
    length = math.ceil(len(known) / _MOST_STRETCHES) or 1
    stretches = []
    for start in range(0, len(known), length):
        places, heights = zip(*known[start : start + length], strict=True)
        mean = sum(heights) / len(heights)
        stretches.append(_Stretch(sum(places) / len(places), min(heights), mean, max(heights)))
    return stretches


def _round_numbers(low: Number, high: Number, many: int = 5) -> list[Number]:
    """About `many` numbers within the range that are 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    rough = (high - low) / many
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.999 * rough)
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _exponents(low: Number, high: Number) -> list[Number]:
    """Marks of a logarithmic axis as exponents of ten: whole ones, or 1, 2, 5 each when those are too few."""
    whole = range(math.ceil(low), math.floor(high) + 1)
    if len(whole) >= 3:
        return [float(power) for power in whole]
    powers = range(math.floor(low), math.ceil(high) + 1)
    fine = [power + math.log10(factor) for power in powers for factor in (1, 2, 5)]
    return [exponent for exponent in fine if low <= exponent <= high]


def _number(value: Number) -> str:
    """Short and readable: 1,200 and 0.035 and 2e-05."""
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.0e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
