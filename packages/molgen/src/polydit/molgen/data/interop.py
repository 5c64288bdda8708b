"""Structure to and from the objects of RDKit, ASE and pymatgen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from polydit.core.errors import InputError
from polydit.molgen.data.structure import Structure

if TYPE_CHECKING:
    from ase import Atoms
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as PymatgenStructure
    from rdkit.Chem import Mol


def to_rdkit(structure: Structure) -> Mol:
    """Sanitised RDKit molecule with its conformer.

    Bonds are the stated ones; without any they are perceived from the positions (RDKit's DetermineBonds).

    Raises:
        InputError: The stated bonds break the rules of valence, or no bonds could be perceived.
    """
    from rdkit import Chem

    if structure.bonds is None:
        from polydit.molgen.bonds import perceive

        mol = perceive(structure, "rdkit")
        if mol is None:
            raise InputError("no bonds could be perceived from the positions", where=structure.id)
        return mol
    mol = rdkit_skeleton(structure)
    try:
        Chem.SanitizeMol(mol)
    except Chem.MolSanitizeException as error:
        raise InputError(f"its bonds make no molecule: {error}", where=structure.id) from error
    return mol


def rdkit_skeleton(structure: Structure) -> Mol:
    """Atoms, stated bonds and conformer as an RDKit molecule, nothing perceived and nothing sanitised."""
    from rdkit import Chem
    from rdkit.Geometry import Point3D

    mol = Chem.RWMol()
    charges = np.zeros(structure.num_atoms, int) if structure.charges is None else structure.charges
    for number, charge in zip(structure.numbers.tolist(), charges.tolist(), strict=True):
        atom = Chem.Atom(number)
        atom.SetFormalCharge(charge)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    for i, j, order in [] if structure.bonds is None else structure.bonds.tolist():
        mol.AddBond(i, j, Chem.BondType.values[order])
        if order == Chem.BondType.AROMATIC:
            mol.GetBondBetweenAtoms(i, j).SetIsAromatic(True)
            for index in (i, j):
                mol.GetAtomWithIdx(index).SetIsAromatic(True)
    conformer = Chem.Conformer(structure.num_atoms)
    conformer.Set3D(True)
    for index, xyz in enumerate(structure.positions.tolist()):
        conformer.SetAtomPosition(index, Point3D(*xyz))
    mol.AddConformer(conformer, assignId=True)
    mol.SetProp("_Name", structure.id)
    return mol.GetMol()


def from_rdkit(
    mol: Mol,
    *,
    id: str,
    conformer: int = -1,
    source: str = "",
    properties: Mapping[str, float | int | str] | None = None,
) -> Structure:
    """Structure of one 3D conformer; bonds and charges are the molecule's.

    A molecule of several atoms without any bond states nothing about bonds: they are None.
    """
    bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), int(b.GetBondType())) for b in mol.GetBonds()]
    return Structure(
        id=id,
        numbers=np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.int64),
        positions=mol.GetConformer(conformer).GetPositions(),
        bonds=np.array(bonds, np.int64).reshape(-1, 3) if bonds or mol.GetNumAtoms() == 1 else None,
        charges=np.array([atom.GetFormalCharge() for atom in mol.GetAtoms()], np.int64),
        source=source,
        properties=dict(properties or {}),
    )


def to_ase(structure: Structure) -> Atoms:
    """ASE atoms; a crystal is periodic in all three directions; properties go to `info`."""
    from ase import Atoms

    return Atoms(
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.cell is not None,
        info={"id": structure.id, **structure.properties},
    )


def from_ase(atoms: Atoms, *, id: str, source: str = "") -> Structure:
    """Structure of ASE atoms: a crystal if the cell spans a volume and the atoms are periodic.

    Raises:
        InputError: The atoms are periodic in one or two directions only.
    """
    if atoms.pbc.any() and not atoms.pbc.all():
        raise InputError(
            "periodic in one or two directions only", where=source, expected="a molecule or a 3D crystal"
        )
    known = {k: v.item() if isinstance(v, np.generic) else v for k, v in atoms.info.items()}
    return Structure(
        id=id,
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=np.array(atoms.cell) if atoms.pbc.all() else None,
        source=source,
        properties={k: v for k, v in known.items() if isinstance(v, (str, int, float)) and k != "id"},
    )


def to_pymatgen(structure: Structure) -> PymatgenStructure:
    """pymatgen structure of a crystal.

    Raises:
        InputError: The structure is a molecule.
    """
    from pymatgen.core import Structure as PymatgenStructure

    if structure.cell is None:
        raise InputError("it is a molecule", where=structure.id, expected="a crystal with lattice vectors")
    return PymatgenStructure(
        structure.cell, structure.symbols, structure.positions, coords_are_cartesian=True
    )


def from_pymatgen(
    crystal: PymatgenStructure,
    *,
    id: str,
    spacegroup: int = 0,
    source: str = "",
    properties: Mapping[str, float | int | str] | None = None,
) -> Structure:
    """Structure of an ordered pymatgen crystal, atoms inside the cell.

    Raises:
        InputError: A site is partly occupied.
    """
    if not crystal.is_ordered:
        raise InputError("a site is partly occupied", where=source, expected="an ordered crystal")
    lattice: Lattice = crystal.lattice
    if not (np.isfinite(crystal.frac_coords).all() and np.isfinite(lattice.matrix).all()):
        raise InputError("a coordinate or the cell is not finite", where=source)
    frac = crystal.frac_coords - np.floor(crystal.frac_coords)
    return Structure(
        id=id,
        numbers=np.array([site.specie.Z for site in crystal], np.int64),
        positions=lattice.get_cartesian_coords(frac),
        cell=lattice.matrix,
        spacegroup=spacegroup,
        source=source,
        properties=dict(properties or {}),
    )
