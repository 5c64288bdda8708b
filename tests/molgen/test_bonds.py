"""Bond perception: EDM's rule against its definition, RDKit's against known molecules and wreckage."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from polydit.molgen.bonds import (
    MAX_RDKIT_ATOMS,
    edm_bond_orders,
    edm_stable_atoms,
    perceive,
    rdkit_connectivity,
    rdkit_orders,
)
from polydit.molgen.data.interop import from_rdkit
from polydit.molgen.data.structure import NUMBERS, Structure

# The part of EDM's tables that QM9 needs, in pm: (single, double, triple), 0 where there is none.
QM9_LENGTHS = {
    "HH": (74, 0, 0), "HC": (109, 0, 0), "HN": (101, 0, 0), "HO": (96, 0, 0), "HF": (92, 0, 0),
    "CC": (154, 134, 120), "CN": (147, 129, 116), "CO": (143, 120, 113), "CF": (135, 0, 0),
    "NN": (145, 125, 110), "NO": (140, 121, 0), "NF": (136, 0, 0),
    "OO": (148, 121, 0), "OF": (142, 0, 0), "FF": (142, 0, 0),
}  # fmt: skip


def of(symbols: list[str], positions: object) -> Structure:
    return Structure(
        id="test",
        numbers=np.array([NUMBERS[symbol] for symbol in symbols]),
        positions=np.array(positions, float),
    )


def pair(first: str, second: str, distance: float) -> Structure:
    return of([first, second], [[0, 0, 0], [0, 0, distance]])


def embedded(smiles: str) -> Structure:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=1) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    return from_rdkit(mol, id=smiles)


@pytest.mark.parametrize(
    ("first", "second", "distance", "order"),
    [
        ("C", "H", 1.09, 1), ("C", "H", 1.1899, 1), ("C", "H", 1.1901, 0),
        ("C", "C", 1.6399, 1), ("C", "C", 1.6401, 0), ("C", "C", 1.3899, 2), ("C", "C", 1.3901, 1),
        ("C", "C", 1.2299, 3), ("C", "C", 1.2301, 2), ("N", "N", 1.10, 3), ("C", "O", 1.128, 3),
        ("O", "O", 1.21, 2), ("O", "O", 1.0, 2),  # no triple bond in the table
        ("P", "S", 1.86, 2), ("S", "S", 2.13, 1), ("Si", "Cl", 2.02, 1), ("B", "C", 1.0, 0),
        ("Fe", "O", 1.6, 0),
    ],
)  # fmt: skip
def test_the_order_of_a_pair_follows_length_and_margin(
    first: str, second: str, distance: float, order: int
) -> None:
    expected = [[0, order], [order, 0]]
    assert edm_bond_orders(pair(first, second, distance)).tolist() == expected
    assert edm_bond_orders(pair(second, first, distance)).tolist() == expected


def order_by_definition(first: str, second: str, picometres: float) -> int:
    single, double, triple = QM9_LENGTHS.get(first + second) or QM9_LENGTHS[second + first]
    if picometres >= single + 10:
        return 0
    if not double or picometres >= double + 5:
        return 1
    return 3 if triple and picometres < triple + 3 else 2


def test_all_pairs_at_once_agree_with_a_loop_over_pairs() -> None:
    generator = np.random.default_rng(0)
    symbols = generator.choice(["H", "C", "N", "O", "F"], size=60).tolist()
    positions = generator.random((60, 3)) * 5
    orders = edm_bond_orders(of(symbols, positions))
    seen = set()
    for i in range(60):
        assert orders[i, i] == 0
        for j in range(i):
            distance = 100 * float(np.linalg.norm(positions[i] - positions[j]))
            expected = order_by_definition(symbols[i], symbols[j], distance)
            assert orders[i, j] == orders[j, i] == expected
            seen.add(expected)
    assert seen == {0, 1, 2, 3}


def test_water_is_stable_and_hydroxyl_is_not() -> None:
    water = embedded("O")
    assert edm_stable_atoms(water).tolist() == [True, True, True]
    hydroxyl = pair("O", "H", 0.96)
    assert edm_stable_atoms(hydroxyl).tolist() == [False, True]


@pytest.mark.parametrize(("hydrogens", "stable"), [(2, False), (3, True), (4, False), (5, True), (6, False)])
def test_phosphorus_has_two_valences(hydrogens: int, stable: bool) -> None:
    around = np.vstack([np.eye(3), -np.eye(3)])[:hydrogens] * 1.44
    phosphine = of(["P"] + ["H"] * hydrogens, np.vstack([np.zeros((1, 3)), around]))
    assert bool(edm_stable_atoms(phosphine)[0]) is stable


def test_an_element_without_a_valence_is_never_stable() -> None:
    assert not edm_stable_atoms(of(["Fe"], [[0, 0, 0]])).any()
    assert not edm_stable_atoms(of(["Og"], [[0, 0, 0]])).any()


@pytest.mark.parametrize("smiles", ["CCO", "c1ccccc1", "CC(=O)N", "C#N", "C[N+](=O)[O-]", "c1ccoc1", "CC=CF"])
def test_rdkit_finds_the_molecule_again(smiles: str) -> None:
    structure = embedded(smiles)
    mol = perceive(structure, "rdkit")
    assert mol is not None
    found = Chem.MolToSmiles(Chem.RemoveHs(mol), isomericSmiles=False)
    assert found == Chem.CanonSmiles(smiles)
    np.testing.assert_allclose(mol.GetConformer().GetPositions(), structure.positions)


def test_edm_molecule_keeps_order_and_positions_and_is_not_sanitised() -> None:
    ammonium = embedded("[NH4+]")  # EDM's rule knows no charges
    mol = perceive(ammonium, "edm")
    assert mol is not None
    assert [atom.GetAtomicNum() for atom in mol.GetAtoms()] == ammonium.numbers.tolist()
    np.testing.assert_allclose(mol.GetConformer().GetPositions(), ammonium.positions)
    with pytest.raises(Chem.AtomValenceException):
        Chem.SanitizeMol(mol)


def test_rdkit_says_why_it_finds_nothing() -> None:
    methyl = of(["C", "H", "H", "H"], [[0, 0, 0], [1.08, 0, 0], [-0.54, 0.935, 0], [-0.54, -0.935, 0]])
    overlapping = of(["C", "C", "O"], [[0, 0, 0], [0, 0, 0], [0, 0, 0]])
    for structure in (methyl, overlapping):
        assert perceive(structure, "rdkit") is None
        assert rdkit_orders(rdkit_connectivity(structure)).reason


def test_rdkit_gives_up_where_it_would_search_for_hours() -> None:
    steps = np.arange(30)
    zigzag = np.stack([1.6 * steps, 1.2 * (steps % 2), 0 * steps], axis=1)
    chain = of(["F"] + ["S"] * 28 + ["H"], zigzag)  # three valences each: 3^28 combinations
    assert "Max Iterations" in rdkit_orders(rdkit_connectivity(chain)).reason


def test_rdkit_leaves_large_molecules_alone() -> None:
    number = MAX_RDKIT_ATOMS + 1
    apart = of(["He"] * number, np.arange(3 * number).reshape(-1, 3) * 5.0)
    assert rdkit_orders(rdkit_connectivity(apart)).reason == f"more than {MAX_RDKIT_ATOMS} atoms"


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(Exception, match="openbabel"):
        perceive(embedded("O"), "openbabel")  # type: ignore[arg-type]
