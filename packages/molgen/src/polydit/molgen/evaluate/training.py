"""What novelty is measured against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from polydit.core.jobs.workers import Workers
from polydit.molgen.data.structure import Rejected, Structure
from polydit.molgen.evaluate.molecules import comparable_smiles, edm_smiles


class TrainingSet(NamedTuple):
    """The molecules of a training set as comparable SMILES, its crystals, and how many rows it has."""

    smiles: set[str]
    crystals: list[Structure]
    read: int
    rejected: int


def collect_training_set(entries: Iterable[Structure | Rejected | str], workers: Workers) -> TrainingSet:
    """Reads a training set to its end; molecules are reduced to their SMILES as they come.

    A molecule with coordinates gets its SMILES by EDM's bonds, as the generated ones do, so that both suffer
    the same errors of perception; a SMILES given as text is only brought into the same form.
    """
    rejected = 0
    crystals: list[Structure] = []

    def molecules() -> Iterator[Structure | str]:
        nonlocal rejected
        for entry in entries:
            if isinstance(entry, Rejected):
                rejected += 1
            elif isinstance(entry, Structure) and entry.kind == "crystal":
                crystals.append(entry)
            else:
                yield entry

    smiles: set[str] = set()
    read = 0
    for text in workers.map(_comparable, molecules()):
        if text is None:
            rejected += 1
        else:
            smiles.add(text)
            read += 1
    return TrainingSet(smiles, crystals, read + len(crystals), rejected)


def _comparable(entry: Structure | str) -> str | None:
    return comparable_smiles(entry) if isinstance(entry, str) else edm_smiles(entry)
