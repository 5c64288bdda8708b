"""One structure as a card of the gallery: views, verdicts, facts, files."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from polydit.core.jobs import ManifestRecord
from polydit.core.report import Badge, Card, viewer
from polydit.core.report.markup import Content, Markup, join, tag
from polydit.molgen.data.structure import Structure
from polydit.molgen.evaluate.evaluation import CrystalRow, MoleculeRow
from polydit.molgen.report.depict import crystal_scene, drawing, find_bonds, molecule_scene

_NO_DRAWING = "RDKit finds no bond orders: sticks follow EDM's bond lengths."


def molecule_card(structure: Structure, row: MoleculeRow | None, record: ManifestRecord | None) -> Card:
    """A molecule in 3D and, if its atoms make one, in 2D.

    Args:
        structure: The molecule.
        row: What the evaluation found of it.
        record: Its line in the manifest.
    """
    mol = find_bonds(structure)
    flat = drawing(mol, label=f"2D drawing of {structure.formula}") if mol else tag("p", _NO_DRAWING)
    pictures = [
        viewer(molecule_scene(structure, mol), label=f"3D structure of {structure.formula}"),
        tag("div", flat, class_="drawing"),
    ]
    facts: list[tuple[str, Content]] = []
    badges: list[Badge] = []
    if row is not None:
        badges = [_verdict(row.valid, "EDM-valid"), _verdict(row.rdkit_valid, "RDKit-valid")]
        badges += [] if row.connected else [Badge("in pieces", "bad")]
        badges += _repetition(row)
        facts = [("SMILES", row.rdkit_smiles)] if row.rdkit_valid else [("RDKit", row.rdkit_reason)]
    return _card(structure, structure.formula, pictures, badges, facts, record)


def crystal_card(structure: Structure, row: CrystalRow | None, record: ManifestRecord | None) -> Card:
    """A crystal's unit cell in 3D; arguments as for `molecule_card`."""
    pictures = [viewer(crystal_scene(structure), label=f"Unit cell of {structure.formula}")]
    facts: list[tuple[str, Content]] = []
    badges: list[Badge] = []
    if row is not None:
        badges = [_verdict(row.structure_valid, "structure valid"), _verdict(row.smact_valid, "SMACT valid")]
        badges += _repetition(row)
        group = f"{row.spacegroup_symbol} ({row.spacegroup})" if row.spacegroup else "none found"
        facts.append(("space group", group))
        if row.min_distance is not None:
            facts.append(("shortest distance", f"{row.min_distance:.2f} Å"))
    facts.append(("a, b, c", " ".join(f"{length:.2f}" for length in structure.lengths) + " Å"))
    facts.append(("α, β, γ", " ".join(f"{angle:.1f}°" for angle in structure.angles)))
    return _card(structure, row.formula if row else structure.formula, pictures, badges, facts, record)


def _card(
    structure: Structure,
    formula: str,
    pictures: list[Markup],
    badges: list[Badge],
    facts: list[tuple[str, Content]],
    record: ManifestRecord | None,
) -> Card:
    facts = [("id", structure.id), *facts, ("atoms", structure.num_atoms)]
    outputs = record["outputs"] if record else []
    if record:
        facts.append(("seed", str(record["seed"])))
    links = [(PurePosixPath(output["path"]).suffix.lstrip(".").upper(), output["path"]) for output in outputs]
    return Card(title=_formula(formula), pictures=pictures, badges=badges, facts=facts, links=links)


def _verdict(passed: bool, name: str) -> Badge:
    return Badge(name, "good") if passed else Badge(f"not {name}", "bad")


def _repetition(row: MoleculeRow | CrystalRow) -> list[Badge]:
    badges = [Badge(f"same as {row.duplicate_of}")] if row.duplicate_of else []
    if row.novel is not None:
        badges.append(Badge("novel" if row.novel else "in the training set"))
    return badges


def _formula(formula: str) -> Markup:
    """A formula with its counts set low."""
    parts = re.split(r"(\d+)", formula)
    return join(*(tag("sub", part) if part.isdigit() else part for part in parts))
