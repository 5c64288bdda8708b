"""Formulas such as C4H8O2: reading them, and drawing them as the training data have them. Standard library only."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from polydit.core.errors import InputError

_PART = re.compile(r"([A-Z][a-z]?)(\d{0,4})")


def parse_formula(text: str) -> dict[str, int]:
    """Atoms of each element.

    Raises:
        InputError: It is no formula.
    """
    parts = _PART.findall(text)
    counts: dict[str, int] = {}
    for symbol, count in parts:
        counts[symbol] = counts.get(symbol, 0) + int(count or 1)
    if "".join(symbol + count for symbol, count in parts) != text or not all(counts.values()) or not counts:
        raise InputError(
            "is no formula", where=f"--formula {text}", expected="auto, none, or such as C4H8O2 or SrTiO3"
        )
    return counts


@dataclass(frozen=True)
class FormulaDistribution:
    """Formulas of each size, with how many structures of the training data have them.

    Args:
        by_size: {atoms: {formula: count}}, counts positive.
    """

    by_size: Mapping[int, Mapping[str, int]]

    @classmethod
    def read(cls, histogram: Mapping[str, int]) -> FormulaDistribution:
        """From {formula: count}."""
        by_size: dict[int, dict[str, int]] = {}
        for formula, count in histogram.items():
            by_size.setdefault(sum(parse_formula(formula).values()), {})[formula] = count
        return cls(by_size)

    @classmethod
    def only(cls, formula: str) -> FormulaDistribution:
        """Always the same."""
        return cls.read({formula: 1})

    def draw(self, num_atoms: int, uniform: float) -> str:
        """The formula at a number in [0, 1) among those of that size; empty if there is none."""
        known = self.by_size.get(num_atoms, {})
        if not known:
            return ""
        cumulative = list(accumulate(known.values()))
        return list(known)[min(bisect_right(cumulative, uniform * cumulative[-1]), len(known) - 1)]
