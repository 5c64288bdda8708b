"""The offline generators: deterministic, chemically sensible, symmetric."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.molgen.data.cells import find_spacegroup, niggli
from polydit.molgen.data.generate_crystals import (
    compound,
    elements,
    estimated_compounds,
    generate_crystals,
    ionic_radius,
)
from polydit.molgen.data.generate_molecules import distinct_graphs, generate_molecules, is_unstable
from polydit.molgen.data.interop import to_rdkit
from polydit.molgen.data.prototypes import LITERATURE, PROTOTYPES
from polydit.molgen.data.recipe import MoleculeRecipe
from polydit.molgen.data.structure import Structure


@pytest.fixture(scope="module")
def small() -> list[Structure]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polydit.molgen.data.generate_molecules.BLOCK_DRAWS", 200)
        return list(generate_molecules(MoleculeRecipe(max_heavy_atoms=3, conformers=2)))


def test_all_small_molecules_are_found(small: list[Structure]) -> None:
    found = {str(structure.properties["smiles"]) for structure in small}
    assert {"C", "N", "O"} <= found
    assert {"CC", "C=C", "C#C", "CN", "CO", "CF", "C=O", "C#N", "C=N"} <= found
    assert {"CCC", "C1CC1", "CCO", "COC", "CC=O", "NC=O", "O=CO", "FC(F)F", "C1CO1", "CC#N"} - found == {
        "FC(F)F"
    }


def test_molecules_are_what_their_smiles_says(small: list[Structure]) -> None:
    from rdkit import Chem

    for structure in small:
        assert structure.charges is not None and not structure.charges.any()
        mol = Chem.MolFromSmiles(Chem.MolToSmiles(Chem.RemoveHs(to_rdkit(structure)), isomericSmiles=False))
        assert Chem.MolToSmiles(mol) == structure.properties["smiles"]


def test_molecules_are_minima_with_sensible_bonds(small: list[Structure]) -> None:
    for structure in small:
        assert structure.bonds is not None
        ends = structure.positions[structure.bonds[:, 0]] - structure.positions[structure.bonds[:, 1]]
        lengths = np.linalg.norm(ends, axis=1)
        assert lengths.min() > 0.85 and lengths.max() < 1.65, structure.properties["smiles"]


def test_conformers_differ_and_come_by_energy(small: list[Structure]) -> None:
    by_smiles: dict[object, list[Structure]] = {}
    for structure in small:
        by_smiles.setdefault(structure.properties["smiles"], []).append(structure)
    assert max(map(len, by_smiles.values())) == 2
    assert len({structure.id for structure in small}) == len(small)
    for group in by_smiles.values():
        energies = [float(structure.properties["energy_kcal_mol"]) for structure in group]
        assert energies == sorted(energies)
        assert [structure.properties["conformer"] for structure in group] == list(range(len(group)))
    assert len(by_smiles["C"]) == 1 and len(by_smiles["CCO"]) == 2  # trans and gauche


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing ends sooner; a worker process has its own constants."""
    monkeypatch.setattr("polydit.molgen.data.generate_molecules.BLOCK_DRAWS", 50)


def test_workers_change_nothing() -> None:
    recipe = MoleculeRecipe(max_heavy_atoms=9, num=12, seed=3)
    alone = list(generate_molecules(recipe))
    together = list(generate_molecules(recipe, workers=2))
    assert [s.id for s in alone] == [s.id for s in together]
    assert len(alone) == 12
    for one, two in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.positions, two.positions)
        assert one.properties == two.properties


@pytest.mark.usefixtures("small_blocks")
def test_seed_changes_the_draws() -> None:
    drawn = [
        [
            s.properties["smiles"]
            for s in generate_molecules(MoleculeRecipe(max_heavy_atoms=9, num=5, seed=seed))
        ]
        for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]


@pytest.mark.usefixtures("small_blocks")
def test_graphs_are_distinct_and_of_the_asked_size() -> None:
    from rdkit import Chem

    graphs = list(distinct_graphs(MoleculeRecipe(max_heavy_atoms=2)))
    assert len(graphs) == len(set(graphs))
    assert Counter(Chem.MolFromSmiles(smiles).GetNumAtoms() for smiles in graphs).keys() == {1, 2}


@pytest.mark.usefixtures("small_blocks")
def test_more_than_there_are_is_an_error() -> None:
    with pytest.raises(InputError, match="distinct molecules"):
        list(generate_molecules(MoleculeRecipe(max_heavy_atoms=1, num=50)))


def test_zero_molecules() -> None:
    assert list(generate_molecules(MoleculeRecipe(num=0))) == []


@pytest.mark.parametrize(
    "changes", [{"max_heavy_atoms": 0}, {"max_heavy_atoms": 10}, {"conformers": 0}, {"num": -1}]
)
def test_recipe_out_of_range(changes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="out of range"):
        MoleculeRecipe(**changes)


@pytest.mark.parametrize(
    ("smiles", "unstable"),
    [
        ("CCO", False), ("c1ccccc1", False), ("c1cn[nH]c1", False), ("c1nnn[nH]1", False), ("c1conn1", False),
        ("OO", True), ("NF", True), ("C=C=C", True), ("OCO", True), ("COCO", True), ("C1#CCCC1", True),
        ("NN", True), ("NO", True), ("C=CO", True), ("C1=CC=C1", True), ("C12C3C1C23", True), ("CC(=O)F", True),
        ("CON=C", False), ("NC=CC=O", True), ("CC(N)=O", False), ("OC(F)C", True), ("C1CC1", False),
    ],
)  # fmt: skip
def test_unstable_groups(smiles: str, unstable: bool) -> None:
    from rdkit import Chem

    assert is_unstable(Chem.MolFromSmiles(smiles)) is unstable


# --- crystals -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crystals() -> list[Structure]:
    return list(generate_crystals())


def test_crystals_have_the_symmetry_of_their_prototype(crystals: list[Structure]) -> None:
    for crystal in crystals:
        prototype = str(crystal.properties["prototype"])
        assert crystal.spacegroup == find_spacegroup(crystal, symprec=0.01) > 0
        if prototype in PROTOTYPES:
            assert crystal.spacegroup == PROTOTYPES[prototype].spacegroup, crystal.id


def test_crystals_are_many_and_distinct(crystals: list[Structure]) -> None:
    assert len({crystal.id for crystal in crystals}) == len(crystals)
    assert len(crystals) == len(list(elements())) + sum(map(len, LITERATURE.values()))
    assert len(crystals) >= 154
    assert not any(crystal.properties["estimated"] for crystal in crystals)


def test_crystals_are_primitive_niggli_cells(crystals: list[Structure]) -> None:
    atoms = {str(crystal.properties["prototype"]): crystal.num_atoms for crystal in crystals}
    assert (atoms["rock salt"], atoms["perovskite"], atoms["rutile"], atoms["fluorite"]) == (2, 5, 6, 3)
    assert (atoms["corundum"], atoms["quartz"], atoms["wurtzite"], atoms["fcc"]) == (10, 9, 4, 1)
    for crystal in crystals[::10]:
        np.testing.assert_allclose(np.sort(niggli(crystal).lengths), np.sort(crystal.lengths), atol=1e-5)


def nearest(crystal: Structure) -> float:
    from pymatgen.core import Structure as PymatgenStructure

    structure = PymatgenStructure(crystal.cell, crystal.symbols, crystal.positions, coords_are_cartesian=True)
    return min(neighbor.nn_distance for site in structure.get_all_neighbors(7.0) for neighbor in site)


@pytest.mark.parametrize(
    ("prototype", "formula", "distance"),
    [
        ("rock salt", "NaCl", 2.820),
        ("zinc blende", "GaAs", 2.448),
        ("wurtzite", "ZnO", 1.974),
        ("caesium chloride", "CsCl", 3.571),
        ("fluorite", "CaF2", 2.366),
        ("antifluorite", "Li2O", 2.000),
        ("perovskite", "SrTiO3", 1.953),
        ("rutile", "TiO2", 1.949),
        ("corundum", "Al2O3", 1.855),
        ("quartz", "SiO2", 1.605),
    ],
)
def test_nearest_distances_are_the_textbooks(prototype: str, formula: str, distance: float) -> None:
    crystal = compound(prototype, formula, LITERATURE[prototype][formula])
    assert nearest(crystal) == pytest.approx(distance, abs=0.01)


def test_elements_have_their_distances() -> None:
    distances = {
        element.id: nearest(element) for element in elements() if element.id[:2] in ("Cu", "Fe", "Si")
    }
    assert distances == pytest.approx({"Cu-fcc": 2.553, "Fe-bcc": 2.485, "Si-diamond": 2.351}, abs=0.01)


def test_estimates_are_new_charge_balanced_and_sensible() -> None:
    found = list(estimated_compounds())
    assert len(found) > 300
    pairs = [(prototype, formula) for prototype, formula, _ in found]
    assert len(set(pairs)) == len(pairs)
    assert not set(pairs) & {(p, formula) for p, table in LITERATURE.items() for formula in table}
    assert ("rock salt", "CaF") not in pairs and ("perovskite", "CaTiO3") in pairs
    crystals = [compound(*row, estimated=True) for row in found[::25]]
    assert all(crystal.properties["estimated"] == 1 for crystal in crystals)
    assert min(map(nearest, crystals)) > 1.3


def test_estimates_come_after_the_literature_and_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polydit.molgen.data.generate_crystals.elements", lambda: iter(()))
    monkeypatch.setattr("polydit.molgen.data.generate_crystals.COORDINATION", {})
    monkeypatch.setattr("polydit.molgen.data.generate_crystals.PEROVSKITE_ANIONS", ("I",))
    few = {prototype: {} for prototype in PROTOTYPES} | {"rock salt": {"NaCl": (5.64,)}}
    monkeypatch.setattr("polydit.molgen.data.generate_crystals.LITERATURE", few)
    marks = [crystal.properties["estimated"] for crystal in generate_crystals(estimated=True)]
    assert marks == [0] + [1] * (len(marks) - 1) and len(marks) > 1


@pytest.mark.parametrize(
    ("prototype", "formula", "ions", "coordination"),
    [
        ("rock salt", "MgO", (("Mg", 2), ("O", -2)), "VI"),
        ("rock salt", "NaCl", (("Na", 1), ("Cl", -1)), "VI"),
    ],
)
def test_estimate_is_near_the_measurement(
    prototype: str, formula: str, ions: tuple[tuple[str, int], ...], coordination: str
) -> None:
    """Shannon's radii give rock salts to 2 %."""
    a = 2 * sum(ionic_radius(symbol, charge, coordination) or 0 for symbol, charge in ions)
    assert a == pytest.approx(LITERATURE[prototype][formula][0], rel=0.02)


def test_radius_at_the_nearest_coordination() -> None:
    assert ionic_radius("Na", 1, "VI") == pytest.approx(1.02)
    assert ionic_radius("Cl", -1, "VIII") == ionic_radius("Cl", -1, "VI")
    assert ionic_radius("Na", 7, "VI") is None
