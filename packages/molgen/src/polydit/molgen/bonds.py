"""Bonds from coordinates, two ways that the field uses: EDM's length tables, and RDKit's perception.

Generated molecules are atoms in space; what is bonded to what has to be inferred, and a figure such as
"valid" means nothing without the name of the rule. `"edm"` is the rule of EDM (Hoogeboom et al. 2022,
"Equivariant Diffusion for Molecule Generation in 3D", appendix on bond distances); `"rdkit"` is
`rdkit.Chem.rdDetermineBonds`, which follows xyz2mol.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds

from polydit.molgen.data.structure import NUMBERS, Structure

Method = Literal["edm", "rdkit"]

MAX_RDKIT_ATOMS: Final = 250
"""Larger molecules get no bond orders from RDKit: at this size the tries below take up to two seconds."""
MAX_RDKIT_ITERATIONS: Final = 10_000
"""Valence assignments that RDKit may try: correct geometries need a few, a chain of sulphur millions."""

_MAX_ATOMIC_NUMBER: Final = 118
_BOND_TYPES: Final = (None, Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)

# Typical bond lengths in pm and the slack added to each, as EDM uses them for QM9 and GEOM. A pair that is
# not listed is never bonded. The slacks were tuned by its authors so that QM9's own molecules come out as
# stable as possible.
_MARGINS_PM: Final = (10, 5, 3)
_SINGLE_PM: Final = {
    "H": {"H": 74, "B": 119, "C": 109, "N": 101, "O": 96, "F": 92, "Si": 148, "P": 144, "S": 134, "Cl": 127,
          "As": 152, "Br": 141, "I": 161},
    "B": {"Cl": 175},
    "C": {"C": 154, "N": 147, "O": 143, "F": 135, "Si": 185, "P": 184, "S": 182, "Cl": 177, "Br": 194,
          "I": 214},
    "N": {"N": 145, "O": 140, "F": 136, "P": 177, "S": 168, "Cl": 175, "Br": 214, "I": 222},
    "O": {"O": 148, "F": 142, "Si": 163, "P": 163, "S": 151, "Cl": 164, "Br": 172, "I": 194},
    "F": {"F": 142, "Si": 160, "P": 156, "S": 158, "Cl": 166, "Br": 178, "I": 187},
    "Si": {"Si": 233, "S": 200, "Cl": 202, "Br": 215, "I": 243},
    "P": {"P": 221, "S": 210, "Cl": 203, "Br": 222},
    "S": {"S": 204, "Cl": 207, "Br": 225, "I": 234},
    "Cl": {"Cl": 199, "Br": 214},
    "Br": {"Br": 228},
    "I": {"I": 266},
}  # fmt: skip
_DOUBLE_PM: Final = {
    "C": {"C": 134, "N": 129, "O": 120, "S": 160},
    "N": {"N": 125, "O": 121},
    "O": {"O": 121, "P": 150},
    "P": {"S": 186},
}
_TRIPLE_PM: Final = {"C": {"C": 120, "N": 116, "O": 113}, "N": {"N": 110}}
_VALENCES: Final = {
    "H": (1,), "B": (3,), "C": (4,), "N": (3,), "O": (2,), "F": (1,), "Al": (3,), "Si": (4,), "P": (3, 5),
    "S": (4,), "Cl": (1,), "As": (3,), "Br": (1,), "I": (1,), "Hg": (1, 2), "Bi": (3, 5),
}  # fmt: skip
_MAX_VALENCE: Final = 5


def _threshold_table() -> np.ndarray:
    """Squared distances in Å² below which a pair has at least order 1, 2, 3: (3, 119, 119); 0 = never."""
    table = np.zeros((3, _MAX_ATOMIC_NUMBER + 1, _MAX_ATOMIC_NUMBER + 1))
    lengths = (_SINGLE_PM, _DOUBLE_PM, _TRIPLE_PM)
    for order, (pairs, margin) in enumerate(zip(lengths, _MARGINS_PM, strict=True)):
        for first, partners in pairs.items():
            for second, length in partners.items():
                i, j = NUMBERS[first], NUMBERS[second]
                table[order, i, j] = table[order, j, i] = ((length + margin) / 100) ** 2
    return table


def _valence_table() -> np.ndarray:
    """True where an element is stable with a sum of bond orders: (119, 7); the last column is "more"."""
    table = np.zeros((_MAX_ATOMIC_NUMBER + 1, _MAX_VALENCE + 2), dtype=bool)
    for symbol, valences in _VALENCES.items():
        table[NUMBERS[symbol], list(valences)] = True
    return table


BOND_THRESHOLDS: Final = _threshold_table()
_STABLE: Final = _valence_table()


class Perception(NamedTuple):
    """A molecule with its conformer, or None and one sentence that says why there is none."""

    mol: Chem.Mol | None
    reason: str = ""


def perceive(structure: Structure, method: Method) -> Chem.Mol | None:
    """A molecule with a conformer, its bonds inferred from the coordinates.

    Args:
        structure: Positions in Å; its own bonds, charges and cell are ignored.
        method: `"edm"` always yields a molecule, not sanitised: whether RDKit accepts it is what EDM's
            validity asks. `"rdkit"` yields a sanitised neutral molecule, formal charges allowed, or None
            where RDKit finds none; `rdkit_orders` says why.
    """
    if method == "edm":
        return edm_molecule(structure)
    if method == "rdkit":
        return rdkit_orders(rdkit_connectivity(structure)).mol
    raise ValueError(f"method must be 'edm' or 'rdkit', got {method!r}")


def edm_bond_orders(structure: Structure) -> Int[np.ndarray, "n n"]:
    """Bond orders 0..3 of all pairs by EDM's rule.

    A pair is bonded when it is closer than its typical single bond + 10 pm; the order is 2 when it is closer
    than its typical double bond + 5 pm as well, and 3 when closer than its triple bond + 3 pm on top of that.

    Args:
        structure: Positions in Å; a cell is ignored.

    Returns:
        A symmetric matrix with a zero diagonal, int64.
    """
    offsets = structure.positions[:, None, :] - structure.positions[None, :, :]
    squared = np.einsum("ijk,ijk->ij", offsets, offsets)
    thresholds = BOND_THRESHOLDS[:, structure.numbers[:, None], structure.numbers[None, :]]
    # EDM tests the orders one inside the other, hence the running product.
    orders = np.cumprod(squared < thresholds, axis=0).sum(axis=0)
    np.fill_diagonal(orders, 0)
    return orders


def edm_stable_atoms(
    structure: Structure, orders: Int[np.ndarray, "n n"] | None = None
) -> Bool[np.ndarray, " n"]:
    """Which atoms carry exactly their valence: H 1, C 4, N 3, O 2, F 1, ... (EDM's "atom stability").

    Args:
        structure: The molecule.
        orders: What `edm_bond_orders` gave for it, when the caller has it already.
    """
    orders = edm_bond_orders(structure) if orders is None else orders
    return _STABLE[structure.numbers, np.minimum(orders.sum(axis=1), _MAX_VALENCE + 1)]


def edm_molecule(structure: Structure, orders: Int[np.ndarray, "n n"] | None = None) -> Chem.Mol:
    """The molecule of EDM's bond orders, not sanitised, with one conformer."""
    orders = edm_bond_orders(structure) if orders is None else orders
    mol = _atoms(structure)
    for i, j in zip(*(side.tolist() for side in np.nonzero(np.triu(orders))), strict=True):
        mol.AddBond(i, j, _BOND_TYPES[orders[i, j]])
    return mol.GetMol()


def rdkit_connectivity(structure: Structure) -> Chem.Mol:
    """The molecule with RDKit's "connect the dots" bonds, all single, not sanitised, with one conformer."""
    mol = _atoms(structure).GetMol()
    rdDetermineBonds.DetermineConnectivity(mol)
    return mol


def rdkit_orders(connected: Chem.Mol) -> Perception:
    """Bond orders and formal charges of a neutral molecule from its connectivity, in a copy."""
    if connected.GetNumAtoms() > MAX_RDKIT_ATOMS:
        return Perception(None, f"more than {MAX_RDKIT_ATOMS} atoms")
    mol = Chem.Mol(connected)
    with rdBase.BlockLogs():
        try:
            rdDetermineBonds.DetermineBondOrders(mol, charge=0, maxIterations=MAX_RDKIT_ITERATIONS)
            Chem.SanitizeMol(mol)
        except (ValueError, RuntimeError) as error:
            return Perception(None, str(error).strip().splitlines()[0])
    return Perception(mol)


def _atoms(structure: Structure) -> Chem.RWMol:
    mol = Chem.RWMol()
    for number in structure.numbers.tolist():
        mol.AddAtom(Chem.Atom(number))
    conformer = Chem.Conformer(structure.num_atoms)
    conformer.Set3D(True)
    conformer.SetPositions(structure.positions)
    mol.AddConformer(conformer)
    return mol
