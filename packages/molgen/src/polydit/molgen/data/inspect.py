"""What is in a set of structures: kinds, sizes, elements, space groups, and what was rejected and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from polydit.molgen.data.structure import Rejected, Structure

BAR_WIDTH = 40  # characters of the longest bar
LISTED_SPACEGROUPS = 15


@dataclass(slots=True)
class Inspection:
    """Counts that grow with the variety of the data, not with its amount.

    Attributes:
        sizes: Per kind, structures by number of atoms.
        elements: Per kind, atoms by element.
        spacegroups: Crystals by space group, 0 = not stated.
        with_bonds: Structures whose bonds are stated.
        rejected: The first rows that were no structure.
        num_rejected: How many there were.
        show_rejected: Most of them to keep.
    """

    show_rejected: int = 20
    sizes: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    elements: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    spacegroups: Counter[int] = field(default_factory=Counter)
    with_bonds: int = 0
    rejected: list[Rejected] = field(default_factory=list)
    num_rejected: int = 0

    def add(self, record: Structure | Rejected) -> None:
        """Count one record."""
        if isinstance(record, Rejected):
            self.num_rejected += 1
            if len(self.rejected) < self.show_rejected:
                self.rejected.append(record)
            return
        self.sizes[record.kind][record.num_atoms] += 1
        self.elements[record.kind].update(record.symbols)
        self.with_bonds += record.bonds is not None
        if record.cell is not None:
            self.spacegroups[record.spacegroup] += 1

    def add_all(self, records: Iterable[Structure | Rejected]) -> Inspection:
        """Count all records and return the inspection itself."""
        for record in records:
            self.add(record)
        return self

    @property
    def num_structures(self) -> int:
        """Structures of both kinds."""
        return sum(sizes.total() for sizes in self.sizes.values())

    def to_json(self) -> dict[str, Any]:
        """All counts, for a program."""
        return {
            "structures": self.num_structures,
            "kinds": {kind: sizes.total() for kind, sizes in sorted(self.sizes.items())},
            "sizes": {kind: dict(sorted(sizes.items())) for kind, sizes in sorted(self.sizes.items())},
            "elements": {kind: dict(counts.most_common()) for kind, counts in sorted(self.elements.items())},
            "spacegroups": dict(sorted(self.spacegroups.items())),
            "with_bonds": self.with_bonds,
            "rejected": self.num_rejected,
            "rejections": [{"source": entry.source, "reason": entry.reason} for entry in self.rejected],
        }

    def lines(self) -> list[str]:
        """The same for a person."""
        lines = [f"{self.num_structures} structures, {self.num_rejected} rejected"]
        for kind, sizes in sorted(self.sizes.items()):
            atoms = sum(size * number for size, number in sizes.items())
            lines += ["", f"{sizes.total()} {kind}s, {atoms} atoms, {atoms / sizes.total():.1f} on average"]
            lines += ["", "atoms", *histogram(dict(sorted(sizes.items())))]
            lines += ["", "element", *histogram(dict(self.elements[kind].most_common()))]
        if self.spacegroups:
            lines += ["", "space group", *self._spacegroup_lines()]
        if self.with_bonds:
            lines += ["", f"{self.with_bonds} state their bonds"]
        if self.rejected:
            lines += ["", f"rejected, the first {len(self.rejected)} of {self.num_rejected}"]
            lines += [f"  {entry.source}: {entry.reason}" for entry in self.rejected]
        return lines

    def _spacegroup_lines(self) -> list[str]:
        common = self.spacegroups.most_common(LISTED_SPACEGROUPS)
        lines = histogram({number or "unknown": count for number, count in common})
        more = len(self.spacegroups) - len(common)
        return [*lines, f"  and {more} more"] if more else lines


def histogram(counts: dict[Any, int]) -> list[str]:
    """Lines "label count bar"; the longest bar is the largest count."""
    width, most = max(len(str(label)) for label in counts), max(counts.values())
    digits = len(str(most))
    return [
        f"  {label!s:>{width}} {count:>{digits}} {'#' * max(1, round(BAR_WIDTH * count / most))}"
        for label, count in counts.items()
    ]
