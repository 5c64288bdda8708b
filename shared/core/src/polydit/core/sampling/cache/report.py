"""What a cache did in one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class CacheWarning(UserWarning):
    """A cache that had no effect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheReport:
    """Steps by their number from 0.

    Args:
        full_steps: Computed, at least in one of the step's calls.
        skipped_steps: Forecast, in whole or in part.
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
        return _told(len(self.skipped_steps), self.num_steps, self.estimated_error)


@dataclass(slots=True)
class CacheTally:
    """The reports of several runs: what a cache did in all batches of a job.

    Args:
        reports: One for each run that came to its end.
    """

    reports: list[CacheReport] = field(default_factory=list)

    def add(self, report: CacheReport) -> None:
        """Count one more run."""
        self.reports.append(report)

    @property
    def steps(self) -> int:
        """Of all runs."""
        return sum(report.num_steps for report in self.reports)

    @property
    def skipped(self) -> int:
        """Of all runs' steps, those that were forecast."""
        return sum(len(report.skipped_steps) for report in self.reports)

    @property
    def estimated_error(self) -> float | None:
        """Mean over the runs that had a forecast to judge; None if none had."""
        known = [error for report in self.reports if (error := report.estimated_error) is not None]
        return sum(known) / len(known) if known else None

    def record(self) -> dict[str, Any]:
        """For a program."""
        return {
            "runs": len(self.reports),
            "steps": self.steps,
            "full_steps": self.steps - self.skipped,
            "skipped_steps": self.skipped,
            "estimated_error": self.estimated_error,
        }

    def __str__(self) -> str:
        return _told(self.skipped, self.steps, self.estimated_error)


def _told(skipped: int, steps: int, error: float | None) -> str:
    off = "" if error is None else f", forecasts off by {100 * error:.2g} % at full steps"
    return f"{skipped} of {steps} steps skipped{off}"
