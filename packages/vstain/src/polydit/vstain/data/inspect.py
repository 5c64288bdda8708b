"""What is in a set of pairs: stains, splits, sizes, positive area, and what was rejected and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from polydit.core.errors import InputError
from polydit.vstain.data.pair_file import PairFile, Rejected
from polydit.vstain.pairs import StainPair

_UNKNOWN = "(none stated)"


@dataclass(slots=True)
class Inspection:
    """Counts that grow with the variety of the data, not with its amount.

    Args:
        show_rejected: Most rejected pairs to keep.
        pairs: Good pairs by stain and split.
        sizes: By width and height.
        mpp: By microns per pixel.
        masked: By stain, those that have a mask.
        positive: By stain, the sum of their shares of positive pixels.
        rejected: The first pairs that cannot be used.
        num_rejected: How many there were.
    """

    show_rejected: int = 20
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    mpp: Counter[float | None] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    positive: dict[str, float] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    num_rejected: int = 0

    def add_all(self, found: Iterable[PairFile]) -> Inspection:
        """Reads and counts all pairs, and returns the inspection itself."""
        for entry in found:
            try:
                self._add(entry.read(), entry.split)
            except InputError as error:
                self.num_rejected += 1
                if len(self.rejected) < self.show_rejected:
                    self.rejected.append(Rejected.of(error, str(entry.he)))
        return self

    def _add(self, pair: StainPair, split: str) -> None:
        stain = pair.stain or _UNKNOWN
        self.pairs[stain, split or _UNKNOWN] += 1
        self.sizes[pair.he.shape[1], pair.he.shape[0]] += 1
        self.mpp[pair.mpp] += 1
        if pair.mask is not None:
            self.masked[stain] += 1
            self.positive[stain] = self.positive.get(stain, 0.0) + float(pair.mask.mean())

    def to_json(self) -> dict[str, Any]:
        """All figures, for a program."""
        by_stain: dict[str, dict[str, int]] = {}
        for (stain, split), count in sorted(self.pairs.items()):
            by_stain.setdefault(stain, {})[split] = count
        return {
            "pairs": self.pairs.total(),
            "stains": by_stain,
            "sizes": {f"{width}x{height}": count for (width, height), count in sorted(self.sizes.items())},
            "mpp": {f"{mpp:g}" if mpp else _UNKNOWN: count for mpp, count in self.mpp.items()},
            "masks": dict(sorted(self.masked.items())),
            "positive_share": {
                stain: total / self.masked[stain] for stain, total in sorted(self.positive.items())
            },
            "rejected": self.num_rejected,
            "rejections": [entry._asdict() for entry in self.rejected],
        }

    def lines(self) -> list[str]:
        """The same for a person."""
        told = self.to_json()
        lines = [f"{told['pairs']} pairs, {self.num_rejected} rejected"]
        for stain, splits in told["stains"].items():
            counts = ", ".join(f"{split} {count}" for split, count in splits.items())
            masks = f"; {self.masked[stain]} masks"
            if stain in told["positive_share"]:
                masks += f", {told['positive_share'][stain]:.1%} of their pixels positive"
            lines.append(f"  {stain}: {counts}{masks}")
        if told["pairs"]:
            lines.append("pixels: " + _counts(told["sizes"]))
            lines.append("microns per pixel: " + _counts(told["mpp"]))
        if self.rejected:
            lines += ["", f"rejected, the first {len(self.rejected)} of {self.num_rejected}"]
            lines += [f"  {entry.source}: {entry.reason}" for entry in self.rejected]
        return lines


def _counts(counts: dict[str, int]) -> str:
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
