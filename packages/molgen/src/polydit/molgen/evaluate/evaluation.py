"""What an evaluation leaves: a row per structure, the figures over all of them, and both as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from polydit.core.figure import Figure
from polydit.molgen.data.structure import Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class MoleculeRow:
    """What was found of one molecule.

    Attributes:
        id: Its name in the input.
        source: Where it was read, "file:row".
        formula: All atoms in Hill order.
        num_atoms: Hydrogens included.
        stable_atoms: How many carry their valence by EDM's bonds.
        stable: EDM's molecule stability: all of them do.
        valid: EDM's validity.
        smiles: By EDM's bonds, largest fragment, hydrogens written out; empty if it is not valid.
        rdkit_valid: RDKit found bond orders and formal charges, sanitised the molecule, and saw no radical
            and no charged fragment.
        rdkit_smiles: By RDKit's bonds, all fragments, hydrogens implied; empty if it is not valid.
        rdkit_reason: Why RDKit's verdict is negative; empty if it is valid.
        connected: RDKit's connectivity makes it one piece.
        duplicate_of: The first molecule with the same `smiles`, if this is not the first; filled by
            `compare`.
        novel: Whether the training set lacks `smiles`; None without a training set or SMILES; filled by
            `compare`.
        posebusters: Check -> passed; empty if not asked for, or if RDKit finds it not valid.
    """

    id: str
    source: str
    formula: str
    num_atoms: int
    stable_atoms: int
    stable: bool
    valid: bool
    smiles: str
    rdkit_valid: bool
    rdkit_smiles: str
    rdkit_reason: str
    connected: bool
    duplicate_of: str | None = None
    novel: bool | None = None
    posebusters: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrystalRow:
    """What was found of one crystal.

    Attributes:
        id: Its name in the input.
        source: Where it was read, "file:row".
        formula: Reduced.
        num_atoms: In the cell as given.
        volume: Of the cell as given, in Å³.
        min_distance: Between different atoms of the cell or their images, in Å; None for a single atom.
        absurd_angles: An angle of the cell is outside (50°, 130°).
        structure_valid: Distances and volume are possible.
        smact_valid: The composition passes SMACT.
        valid: Both.
        spacegroup: International number; 0 if spglib finds none.
        spacegroup_symbol: Its short Hermann-Mauguin symbol.
        duplicate_of: The first valid crystal that matches, if this is not the first; filled by `compare`.
        novel: Whether nothing in the training set matches; None without one, or if not valid; filled by
            `compare`.
    """

    id: str
    source: str
    formula: str
    num_atoms: int
    volume: float
    min_distance: float | None
    absurd_angles: bool
    structure_valid: bool
    smact_valid: bool
    valid: bool
    spacegroup: int
    spacegroup_symbol: str
    duplicate_of: str | None = None
    novel: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `evaluate_structures` found.

    Attributes:
        figures: In the order in which they are read; a kind of structure that was absent has none.
        molecules: One row per molecule, in the order of the input.
        crystals: One row per crystal, in the order of the input.
        rejected: What could not be read or assessed; no figure counts it, except "read".
    """

    figures: tuple[Figure, ...]
    molecules: tuple[MoleculeRow, ...]
    crystals: tuple[CrystalRow, ...]
    rejected: tuple[Rejected, ...]

    def __getitem__(self, name: str) -> Figure:
        """The figure of that name. Raises KeyError if there is none."""
        for figure in self.figures:
            if figure.name == name:
                return figure
        raise KeyError(name)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Every figure under its name: value, numerator, denominator, interval, method."""
        return {figure.name: figure.to_json() for figure in self.figures}

    def files(self) -> dict[str, bytes]:
        """As files: summary.json, and molecules.csv, crystals.csv and rejected.csv unless they are empty."""
        texts = {"summary.json": json.dumps(self.to_json(), indent=2, ensure_ascii=False) + "\n"}
        tables: dict[str, Sequence[MoleculeRow | CrystalRow | Rejected]] = {
            "molecules": self.molecules,
            "crystals": self.crystals,
            "rejected": self.rejected,
        }
        for name, rows in tables.items():
            if rows:
                texts[f"{name}.csv"] = _csv([asdict(row) for row in rows])
        return {name: text.encode() for name, text in texts.items()}


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV: a nested mapping becomes one column per key, None an empty cell, a truth value 0 or 1."""
    table = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(key for row in table for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}_{inner}": int(passed) for inner, passed in value.items()}
        else:
            flat[key] = int(value) if isinstance(value, bool) else value
    return flat
