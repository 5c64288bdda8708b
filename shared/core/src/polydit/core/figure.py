"""What an evaluation finds: a fraction, or a number with a unit, each with its interval and its method.

Imports the standard library only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

_Z_95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One fraction, with the count behind it and the rule that counted.

    Attributes:
        name: Unique within an evaluation, such as "valid".
        numerator: How many passed.
        denominator: Out of how many; with 0 there is no value.
        method: The rule, in words.
    """

    name: str
    numerator: int
    denominator: int
    method: str

    def __post_init__(self) -> None:
        assert 0 <= self.numerator <= self.denominator, self

    @property
    def value(self) -> float | None:
        """The fraction, 0..1; None when nothing was counted."""
        return self.numerator / self.denominator if self.denominator else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % Wilson score interval of the fraction; None when nothing was counted."""
        return wilson_interval(self.numerator, self.denominator) if self.denominator else None

    def to_json(self) -> dict[str, Any]:
        """Value, counts, interval and method; the name is the key under which it is stored."""
        return {
            "value": self.value,
            "numerator": self.numerator,
            "denominator": self.denominator,
            "interval": self.interval,
            "method": self.method,
        }

    def percent(self) -> str:
        """The value as a person reads it: "95.71 %", or "-"."""
        return "-" if self.value is None else f"{100 * self.value:.2f} %"

    def percent_interval(self) -> str:
        """The interval as a person reads it: "67.13 to 68.96 %", or "-"."""
        if self.interval is None:
            return "-"
        low, high = self.interval
        return f"{100 * low:.2f} to {100 * high:.2f} %"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A figure that is no fraction.

    Attributes:
        name: Unique within an evaluation, such as "psnr".
        value: In the unit of `unit`; None where nothing could be measured.
        unit: What the value is a number of; "" = nothing.
        method: The rule, in words.
        interval: 95 %; None where there is none.
        count: Over how many items; None where the method says it.
    """

    name: str
    value: float | None
    unit: str
    method: str
    interval: tuple[float, float] | None = None
    count: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the name, which is the key under which it is stored; no count where there is none."""
        count = {} if self.count is None else {"count": self.count}
        found = {"value": self.value, "unit": self.unit}
        return {**found, **count, "interval": self.interval, "method": self.method}

    def text(self) -> str:
        """The value as a person reads it: "0.9134", "21.2 dB", or "-"."""
        return "-" if self.value is None else f"{self.value:.4g} {self.unit}".rstrip()

    def text_interval(self) -> str:
        """The interval as a person reads it: "0.9 to 0.92", or "-"."""
        return "-" if self.interval is None else f"{self.interval[0]:.4g} to {self.interval[1]:.4g}"


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a binomial proportion (Wilson 1927).

    It stays within 0..1 and is right near the ends, where the usual one is not. It takes the trials for
    independent.
    """
    shrink = 1 + _Z_95**2 / trials
    centre = (successes + _Z_95**2 / 2) / trials / shrink
    spread = _Z_95 * math.sqrt(successes * (trials - successes) / trials + _Z_95**2 / 4) / trials / shrink
    return max(0.0, centre - spread), min(1.0, centre + spread)
