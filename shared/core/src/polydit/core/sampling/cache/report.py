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
    """The reports of several runs, added up: what a cache did in all batches of a job.

    Args:
        runs: That came to their end.
        steps: Of all of them.
        skipped: Those that were forecast.
        judged: Runs that had a forecast to judge.
        errors: Sum of the judged runs' mean errors.
    """

    runs: int = 0
    steps: int = 0
    skipped: int = 0
    judged: int = 0
    errors: float = 0.0

    def add(self, report: CacheReport) -> None:
        """Count one more run."""
        error = report.estimated_error
        self._count(1, report.num_steps, len(report.skipped_steps), error)

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Count the runs of another tally, from its `record`; its mean error is taken for that of each of them."""
        self._count(record["runs"], record["steps"], record["skipped_steps"], record["estimated_error"])

    def _count(self, runs: int, steps: int, skipped: int, error: float | None) -> None:
        self.runs, self.steps, self.skipped = self.runs + runs, self.steps + steps, self.skipped + skipped
        if error is not None:
            self.judged, self.errors = self.judged + runs, self.errors + runs * error

    @property
    def estimated_error(self) -> float | None:
        """Mean over the runs that had a forecast to judge; None if none had."""
        return self.errors / self.judged if self.judged else None

    def record(self) -> dict[str, Any]:
        """For a program."""
        return {
            "runs": self.runs,
            "steps": self.steps,
            "full_steps": self.steps - self.skipped,
            "skipped_steps": self.skipped,
            "estimated_error": self.estimated_error,
        }

    def complaint(self, cache: str, made: str) -> str | None:
        """What is wrong with the cache in these runs; None = nothing.

        Args:
            cache: Its name.
            made: What the runs made, in the plural.
        """
        if not self.skipped:
            return f"the cache {cache} had no effect: every step was computed"
        if self.estimated_error is None or self.estimated_error < 1.0:
            return None
        return (
            f"the cache {cache} does not suit this sampling, as with new noise in every step: its forecasts "
            f"are off by {100 * self.estimated_error:.0f} %, and so are the {made}. Sample without it."
        )

    def __str__(self) -> str:
        return _told(self.skipped, self.steps, self.estimated_error)


def _told(skipped: int, steps: int, error: float | None) -> str:
    off = "" if error is None else f", forecasts off by {100 * error:.2g} % at full steps"
    return f"{skipped} of {steps} steps skipped{off}"
