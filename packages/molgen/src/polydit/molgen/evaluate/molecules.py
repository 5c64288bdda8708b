"""EDM's figures of molecules, and RDKit's own verdict beside them.

EDM (Hoogeboom et al. 2022, section 5.1): an atom is stable when its bond orders sum to its valence, a
    molecule when all
its atoms are; it is valid when RDKit sanitises the molecule that EDM's bond orders make, and its SMILES is
then that of its largest fragment; unique counts distinct SMILES among the valid, novel those of the distinct
that the training set lacks. A missing hydrogen does not make a molecule invalid by that rule: RDKit adds it
silently. The second verdict closes this gap: RDKit itself must find bond orders for the atoms as they are,
without radicals, and in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import replace

import rdkit
from rdkit import Chem, rdBase

from polydit.core.figure import Figure
from polydit.molgen.bonds import (
    Perception,
    edm_bond_orders,
    edm_molecule,
    edm_stable_atoms,
    rdkit_connectivity,
    rdkit_orders,
)
from polydit.molgen.data.structure import Structure
from polydit.molgen.evaluate.evaluation import MoleculeRow
from polydit.molgen.evaluate.posebusters import posebusters_checks

_EDM = "EDM's bond lengths"
_RDKIT = f"RDKit {rdkit.__version__}"


def assess_molecule(
    structure: Structure, *, posebusters: bool = False, internal_energy: bool = False
) -> MoleculeRow:
    """All that can be said of one molecule without the others."""
    with rdBase.BlockLogs():
        orders = edm_bond_orders(structure)
        stable_atoms = int(edm_stable_atoms(structure, orders).sum())
        smiles = _sanitised_smiles(edm_molecule(structure, orders))
        connected = rdkit_connectivity(structure)
        mol, reason = _sound(rdkit_orders(connected))
        checks = posebusters_checks(mol, internal_energy=internal_energy) if mol and posebusters else {}
        return MoleculeRow(
            id=structure.id,
            source=structure.source,
            formula=structure.formula,
            num_atoms=structure.num_atoms,
            stable_atoms=stable_atoms,
            stable=stable_atoms == structure.num_atoms,
            valid=bool(smiles),
            smiles=smiles,
            rdkit_valid=mol is not None,
            rdkit_smiles=Chem.MolToSmiles(Chem.RemoveHs(mol)) if mol else "",
            rdkit_reason=reason,
            connected=len(Chem.GetMolFrags(connected)) == 1,
            posebusters=checks,
        )


def _sound(found: Perception) -> Perception:
    """What RDKit found, unless it is a radical or neutral only as a whole, such as [C-4] beside four [H+]."""
    if found.mol is None:
        return found
    if any(atom.GetNumRadicalElectrons() for atom in found.mol.GetAtoms()):
        return Perception(None, "an atom has an unpaired electron")
    if any(Chem.GetFormalCharge(fragment) for fragment in Chem.GetMolFrags(found.mol, asMols=True)):
        return Perception(None, "a fragment is charged")
    return found


def edm_smiles(structure: Structure) -> str:
    """SMILES of the largest fragment by EDM's bonds, hydrogens written out; empty if it is not valid."""
    with rdBase.BlockLogs():
        return _sanitised_smiles(edm_molecule(structure))


def comparable_smiles(smiles: str) -> str | None:
    """Any SMILES in the form of `edm_smiles`: hydrogens written out, no stereo; None if unreadable."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None:
            return None
        mol = Chem.AddHs(mol)
        Chem.RemoveStereochemistry(mol)
        return Chem.MolToSmiles(_largest_fragment(mol))


def _sanitised_smiles(mol: Chem.Mol) -> str:
    try:
        Chem.SanitizeMol(mol)
    except ValueError:
        return ""
    return Chem.MolToSmiles(_largest_fragment(mol))


def _largest_fragment(mol: Chem.Mol) -> Chem.Mol:
    fragments = Chem.GetMolFrags(mol, asMols=True)
    return max(fragments, key=Chem.Mol.GetNumAtoms) if len(fragments) > 1 else mol


def compare(rows: Iterable[MoleculeRow], training: Set[str] | None) -> tuple[MoleculeRow, ...]:
    """The rows with `duplicate_of` and `novel` filled.

    Args:
        rows: In the order of the input.
        training: SMILES in the form of `edm_smiles`; None if there is no training set.
    """
    first: dict[str, str] = {}
    compared = []
    for row in rows:
        if row.valid:
            duplicate_of = first.get(row.smiles)
            first.setdefault(row.smiles, row.id)
            novel = None if training is None else row.smiles not in training
            row = replace(row, duplicate_of=duplicate_of, novel=novel)
        compared.append(row)
    return tuple(compared)


def molecule_figures(rows: Sequence[MoleculeRow], *, novelty: bool) -> list[Figure]:
    """The figures of compared rows; `novelty` tells whether there was a training set."""
    valid = [row for row in rows if row.valid]
    unique = [row for row in valid if row.duplicate_of is None]
    both = sum(row.rdkit_valid and row.connected for row in rows)
    figures = [
        Figure(
            name="edm_atom_stable",
            numerator=sum(row.stable_atoms for row in rows),
            denominator=sum(row.num_atoms for row in rows),
            method=f"{_EDM}: the atom's bond orders sum to its valence",
        ),
        Figure(
            name="edm_molecule_stable",
            numerator=sum(row.stable for row in rows),
            denominator=len(rows),
            method=f"{_EDM}: all atoms are stable",
        ),
        Figure(
            name="edm_valid",
            numerator=len(valid),
            denominator=len(rows),
            method=f"{_EDM}: {_RDKIT} sanitises the molecule",
        ),
        Figure(
            name="edm_unique_of_valid",
            numerator=len(unique),
            denominator=len(valid),
            method=f"{_EDM}: distinct SMILES of the largest fragment among the valid",
        ),
        Figure(
            name="edm_valid_and_unique",
            numerator=len(unique),
            denominator=len(rows),
            method=f"{_EDM}: distinct SMILES of the largest fragment among all",
        ),
    ]
    if novelty:
        figures.append(
            Figure(
                name="edm_novel_of_unique",
                numerator=sum(bool(row.novel) for row in unique),
                denominator=len(unique),
                method=f"{_EDM}: distinct SMILES that the training set lacks",
            )
        )
    figures += [
        Figure(
            name="rdkit_valid",
            numerator=sum(row.rdkit_valid for row in rows),
            denominator=len(rows),
            method=f"{_RDKIT} DetermineBonds, charge 0: sanitised, no radical, no charged fragment",
        ),
        Figure(
            name="connected",
            numerator=sum(row.connected for row in rows),
            denominator=len(rows),
            method=f"{_RDKIT} DetermineConnectivity: one fragment",
        ),
        Figure(
            name="rdkit_valid_and_connected",
            numerator=both,
            denominator=len(rows),
            method="both of the two above",
        ),
    ]
    return figures + _posebusters_figures(rows)


def _posebusters_figures(rows: Sequence[MoleculeRow]) -> list[Figure]:
    checked = [row.posebusters for row in rows if row.posebusters]
    names = list(dict.fromkeys(name for checks in checked for name in checks))
    if not names:
        return []
    from importlib.metadata import version

    method = f"PoseBusters {version('posebusters')}, configuration mol, of the RDKit-valid"
    passed = {name: sum(checks.get(name, False) for checks in checked) for name in names}
    passed["all_checks"] = sum(all(checks.values()) for checks in checked)
    return [
        Figure(name=f"posebusters_{name}", numerator=count, denominator=len(checked), method=method)
        for name, count in passed.items()
    ]
