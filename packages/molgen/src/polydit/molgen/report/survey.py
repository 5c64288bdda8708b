"""Distributions of a set of structures, counted while they pass by on their way to something else."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from polydit.core.errors import CheckpointError
from polydit.core.jobs import RunRecord
from polydit.molgen.checkpoint import Checkpoint
from polydit.molgen.data.structure import Kind, Rejected, Structure

Entry = TypeVar("Entry")


@dataclass(slots=True)
class Survey:
    """What a set of structures looks like as a whole; memory does not grow with the set.

    Args:
        keep: How many structures, and how many rejected rows, to hold on to: the first.
        name: What it is a survey of.
        sizes: Per kind, structures by number of atoms.
        elements: Per kind, atoms by element symbol.
        structures: The first structures.
        rejected: The first rows that were no structure.
        num_rejected: How many there were in all.
    """

    name: str
    keep: int = 0
    sizes: dict[Kind, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    elements: dict[Kind, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    structures: list[Structure] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    num_rejected: int = 0

    def watch(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Hands the entries on unchanged; what is neither structure nor rejected is not counted."""
        for entry in entries:
            if isinstance(entry, Structure):
                self._count(entry)
            elif isinstance(entry, Rejected):
                self.num_rejected += 1
                if len(self.rejected) < self.keep:
                    self.rejected.append(entry)
            yield entry

    def _count(self, structure: Structure) -> None:
        self.sizes[structure.kind][structure.num_atoms] += 1
        self.elements[structure.kind].update(structure.symbols)
        if len(self.structures) < self.keep:
            self.structures.append(structure)

    def to_json(self) -> dict[str, Any]:
        """Sizes and elements with their counts, per kind."""
        return {
            "sizes": {kind: dict(sorted(sizes.items())) for kind, sizes in self.sizes.items()},
            "elements": {kind: dict(elements.most_common()) for kind, elements in self.elements.items()},
        }


def training_survey(run: RunRecord) -> Survey:
    """What the run's checkpoint remembers of its training set; empty if it is not there any more."""
    survey = Survey("training set")
    checkpoint = _checkpoint_of(run)
    if checkpoint is not None:
        for kind, histogram in checkpoint.index.get("size_histograms", {}).items():
            survey.sizes[kind].update({int(size): count for size, count in histogram.items()})
        for kind, counts in checkpoint.index.get("elements", {}).items():
            survey.elements[kind].update(counts)
    return survey


def _checkpoint_of(run: RunRecord) -> Checkpoint | None:
    """The checkpoint that made the run, where it was then and if it is still the same."""
    recorded = run.provenance.get("checkpoint", {})
    try:
        checkpoint = Checkpoint.find(recorded["path"])
        return checkpoint if checkpoint.sha256 == recorded["sha256"] else None
    except (CheckpointError, KeyError, OSError):
        return None
