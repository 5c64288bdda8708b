"""One measured figure of a bench, and all of them as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure beside what was asked of it.

    Args:
        key: Short name, stable over time.
        what: What was measured, as one phrase.
        value: The figure; None if it could not be measured, then `how` says why.
        unit: Unit, or "×" for a ratio.
        asked: The least that is asked; None = only reported.
        aim: What is aimed at.
        more_is_better: Direction of `asked` and `aim`.
        how: Sizes, threads, precision, rounds: enough to measure it again.
        details: Further figures, raw timings among them.
    """

    key: str
    what: str
    value: float | None
    unit: str
    how: str
    asked: float | None = None
    aim: float | None = None
    more_is_better: bool = False
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reached(self) -> str:
        """ "aim", "asked", "missed", or "" where nothing was asked or measured."""
        if self.value is None or self.asked is None:
            return ""
        if self.aim is not None and self._meets(self.aim):
            return "aim"
        return "asked" if self._meets(self.asked) else "missed"

    def _meets(self, bound: float) -> bool:
        assert self.value is not None
        return self.value >= bound if self.more_is_better else self.value <= bound

    def record(self) -> dict[str, Any]:
        """Everything, as JSON types."""
        return {**asdict(self), "reached": self.reached}

    def line(self) -> dict[str, Any]:
        """The row as a person reads it."""
        sign = "≥" if self.more_is_better else "≤"
        return {
            "what": self.what,
            "asked": "" if self.asked is None else f"{sign} {self._number(self.asked)}",
            "aim": "" if self.aim is None else f"{sign} {self._number(self.aim)}",
            "measured": "not measured" if self.value is None else self._number(self.value),
            "reached": self.reached,
            "how": self.how,
        }

    def _number(self, value: float) -> str:
        return f"{value:.3g} {self.unit}"
