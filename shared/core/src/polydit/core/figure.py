"""A figure: a fraction with its counts, its interval and its method. Imports the standard library only."""

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


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a binomial proportion (Wilson 1927).

    It stays within 0..1 and is right near the ends, where the usual one is not. It takes the trials for
    independent.
    """
    shrink = 1 + _Z_95**2 / trials
    centre = (successes + _Z_95**2 / 2) / trials / shrink
    spread = _Z_95 * math.sqrt(successes * (trials - successes) / trials + _Z_95**2 / 4) / trials / shrink
    return max(0.0, centre - spread), min(1.0, centre + spread)
