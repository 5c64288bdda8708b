"""What a cache did in one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class CacheWarning(UserWarning):
    """A cache that had no effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheReport:
    """Steps by their number from 0.

    Args:
        full_steps: Computed, at least in one of the step's calls.
        skipped_steps: Forecast.
        errors: At full steps, the relative error of the forecast that was not needed: mean |forecast - value| /
            mean |value| at the last place of the site.
    """

    full_steps: tuple[int, ...]
    skipped_steps: tuple[int, ...]
    errors: Mapping[int, float] = field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        """Steps that the network was called for."""
        return len(self.full_steps) + len(self.skipped_steps)

    @property
    def estimated_error(self) -> float | None:
        """Mean of `errors`; None if no step had a forecast to judge."""
        return sum(self.errors.values()) / len(self.errors) if self.errors else None

    def __str__(self) -> str:
        error = self.estimated_error
        told = "" if error is None else f", forecasts off by {100 * error:.2g} % at full steps"
        return f"{len(self.skipped_steps)} of {self.num_steps} steps skipped{told}"
