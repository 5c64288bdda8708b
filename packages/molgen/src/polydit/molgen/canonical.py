"""One pose and one order of atoms per structure, so that a small network need not learn all of them.

ADiT learns every rotation from data. On few processors that costs most of the training, and a generated structure in
another pose is the same structure. So the starter is trained on canonical poses: a molecule stands on its first atoms,
a crystal in its reduced cell; atoms come in an order that keeps neighbours together.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

if TYPE_CHECKING:
    from polydit.molgen.data.structure import Structure

# Where the first atom of a crystal stands: atoms on halves and quarters of the cell are then far from its border, where
# a fractional coordinate jumps from 0 to 1 and its squared error means nothing.
_ORIGIN = 0.125
_PARALLEL = 0.05  # sine of the angle below which two directions count as one line


def canonical(structure: Structure) -> Structure:
    """The same structure in canonical order and pose. Properties are kept; bonds are renumbered."""
    return _canonical_molecule(structure) if structure.cell is None else _canonical_crystal(structure)


def _canonical_molecule(structure: Structure) -> Structure:
    """Atoms as in the canonical SMILES, each heavy atom followed by its hydrogens; pose from the first atoms."""
    ordered = _reorder(structure, _smiles_order(structure))
    heavy_first = ordered.positions[np.argsort(ordered.numbers == 1, kind="stable")]
    turned = replace(ordered, positions=ordered.positions @ _frame(heavy_first).T)
    # Hydrogens of one atom are alike; an order by position makes them one configuration, not six.
    turned = _reorder(turned, _hydrogen_order(turned))
    return replace(turned, positions=turned.positions - turned.positions.mean(0))


def _canonical_crystal(structure: Structure) -> Structure:
    """Reduced cell in the standard orientation; atoms by electronegativity, then by position."""
    from polydit.molgen.data.cells import niggli

    reduced = niggli(structure)
    frac = reduced.frac_coords
    rank = [_electronegativity(int(number)) for number in reduced.numbers]
    first = _sorted_by(rank, frac)[0]
    frac = (frac - frac[first] + _ORIGIN) % 1.0
    assert reduced.cell is not None
    moved = replace(reduced, positions=frac @ reduced.cell)
    return _reorder(moved, _sorted_by(rank, frac))


def _sorted_by(rank: list[float], frac: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, " n"]:
    x, y, z = np.round(frac, 2).T
    return np.lexsort((z, y, x, rank))


@cache
def _electronegativity(number: int) -> float:
    from pymatgen.core import Element

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # noble gases have none, and pymatgen says so each time
        value = Element.from_Z(number).X
    return 0.0 if np.isnan(value) else float(value)


def _reorder(structure: Structure, order: Int[np.ndarray, " n"]) -> Structure:
    bonds = structure.bonds
    if bonds is not None and len(bonds):
        bonds = np.concatenate([np.argsort(order)[bonds[:, :2]], bonds[:, 2:]], axis=1)
    charges = None if structure.charges is None else structure.charges[order]
    return replace(
        structure,
        numbers=structure.numbers[order],
        positions=structure.positions[order],
        bonds=bonds,
        charges=charges,
    )


def _smiles_order(structure: Structure) -> Int[np.ndarray, " n"]:
    from rdkit import Chem

    from polydit.molgen.bonds import perceive
    from polydit.molgen.data.interop import to_rdkit

    mol = to_rdkit(structure) if structure.bonds is not None else perceive(structure, "edm")
    if mol is None:
        return np.arange(structure.num_atoms)
    for atom in mol.GetAtoms():
        atom.SetIntProp("slot", atom.GetIdx())
    heavy = Chem.RemoveHs(mol, sanitize=False)
    Chem.MolToSmiles(heavy)
    output_order = heavy.GetPropsAsDict(True, True)["_smilesAtomOutputOrder"]
    written = [heavy.GetAtomWithIdx(i).GetIntProp("slot") for i in output_order]
    order: list[int] = []
    for slot in written:
        order.append(slot)
        neighbours = mol.GetAtomWithIdx(slot).GetNeighbors()
        order.extend(
            sorted(n.GetIdx() for n in neighbours if n.GetAtomicNum() == 1 and n.GetIdx() not in written)
        )
    order.extend(sorted(set(range(mol.GetNumAtoms())) - set(order)))
    return np.array(order)


def _hydrogen_order(structure: Structure) -> Int[np.ndarray, " n"]:
    """Runs of hydrogens sorted by their coordinates; everything else stays."""
    group = np.cumsum(structure.numbers != 1) * 2 + (structure.numbers == 1)
    keys = np.where((structure.numbers == 1)[:, None], np.round(structure.positions, 1), 0.0)
    return np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0], group))


def _frame(positions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3 3"]:
    """Rows = axes: from the first atom to the second, toward the first atom off that line, and their normal."""
    if len(positions) < 2:
        return np.eye(3)
    x = _unit(positions[1] - positions[0])
    for other in positions[2:] - positions[0]:
        y = other - (other @ x) * x
        if np.linalg.norm(y) > _PARALLEL * np.linalg.norm(other):
            y = _unit(y)
            return np.stack([x, y, np.cross(x, y)])
    y = _unit(np.cross(x, np.eye(3)[np.argmin(np.abs(x))]))
    return np.stack([x, y, np.cross(x, y)])


def _unit(vector: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " 3"]:
    return vector / np.linalg.norm(vector)
