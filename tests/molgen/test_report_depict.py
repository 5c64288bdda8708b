"""Pictures of structures: the right spheres, the right sticks, and none that are invented."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from ase.build import bulk
from ase.spacegroup import crystal
from rdkit import Chem
from rdkit.Chem import AllChem

from polydit.core.report import Scene
from polydit.molgen.data.interop import from_ase, from_rdkit
from polydit.molgen.data.structure import Structure
from polydit.molgen.report.depict import crystal_scene, drawing, find_bonds, molecule_scene


def molecule(smiles: str) -> Structure:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMolecule(mol, randomSeed=1)
    return from_rdkit(mol, id=smiles)


def orders(scene: Scene) -> Counter[float]:
    return Counter(order for _, _, order in scene.bonds)


@pytest.mark.parametrize(
    ("smiles", "expected"),
    [
        ("CC#N", {1.0: 4, 3.0: 1}),
        ("C=O", {1.0: 2, 2.0: 1}),
        ("c1ccccc1", {1.0: 6, 1.5: 6}),
        ("[He]", {}),
    ],
)
def test_sticks_have_the_orders_of_the_bonds(smiles: str, expected: dict[float, int]) -> None:
    structure = molecule(smiles)
    assert orders(molecule_scene(structure, find_bonds(structure))) == expected


def test_without_a_valid_molecule_sticks_follow_edm() -> None:
    # A carbon with one hydrogen at bonding distance, and one far away.
    positions = np.array([[0.0, 0, 0], [1.09, 0, 0], [9.0, 0, 0]])
    structure = Structure(id="x", numbers=np.array([6, 1, 1]), positions=positions)
    scene = molecule_scene(structure, None)
    assert list(scene.bonds) == [(0, 1, 1.0)]


@pytest.mark.parametrize("smiles", ["O", "CC", "c1ccccc1", "CC(F)(Cl)N"])
def test_the_first_view_is_turned_not_mirrored(smiles: str) -> None:
    structure = molecule(smiles)
    scene = molecule_scene(structure, None)
    assert scene.rotation is not None
    np.testing.assert_allclose(scene.rotation @ scene.rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(scene.rotation) == pytest.approx(1.0)
    seen = (structure.positions - structure.positions.mean(0)) @ scene.rotation.T
    assert np.ptp(seen[:, 0]) >= np.ptp(seen[:, 2]) - 1e-9  # long ways across, not away from the eye


def test_atoms_on_a_face_are_drawn_on_all_faces() -> None:
    salt = crystal(["Na", "Cl"], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3)
    scene = crystal_scene(from_ase(salt, id="NaCl"))
    assert len(scene.points) == 27  # 8 corners, 6 faces, 12 edges, 1 centre
    assert len(scene.bonds) == 54
    assert len(set(scene.colours)) == 2
    assert scene.rotation is not None
    assert np.linalg.det(scene.rotation) == pytest.approx(1.0)
    lengths = {round(float(np.linalg.norm(scene.points[i] - scene.points[j])), 2) for i, j, _ in scene.bonds}
    assert lengths == {2.82}


def test_sticks_of_a_crystal_join_neighbours_of_both() -> None:
    sites = [(0, 0, 0), (0.305, 0.305, 0)]
    rutile = from_ase(
        crystal(["Ti", "O"], sites, spacegroup=136, cellpar=[4.594, 4.594, 2.959, 90, 90, 90]), id="TiO2"
    )
    scene = crystal_scene(rutile)
    kinds = Counter(frozenset((scene.colours[i], scene.colours[j])) for i, j, _ in scene.bonds)
    assert [len(kind) for kind in kinds] == [2]  # Ti-O only, although Ti-Ti is closer than their radii


@pytest.mark.parametrize("name", ["Cu", "Fe", "Mg", "Si"])
def test_a_cell_of_one_kind_knows_its_neighbours_in_other_cells(name: str) -> None:
    scene = crystal_scene(from_ase(bulk(name), id=name))
    assert scene.bonds
    assert len(scene.points) >= 8


def test_atoms_on_top_of_each_other_can_be_drawn() -> None:
    stacked = Structure(
        id="x", numbers=np.array([6, 6, 118]), positions=np.zeros((3, 3)), cell=np.diag([3.0, 4.0, 5.0])
    )
    assert len(crystal_scene(stacked).points) == 24
    assert molecule_scene(Structure(id="x", numbers=np.array([6, 6]), positions=np.zeros((2, 3))), None)


@pytest.mark.parametrize(
    "smiles", ["C", "[H][H]", "O=C([O-])C[NH3+]", "OC[C@H](N)C(=O)O", "CCCCCCCCCCCCCCCC", "[Na+].[Cl-]"]
)
def test_a_drawing_is_small_whole_and_leaves_the_molecule_alone(smiles: str) -> None:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    before = mol.ToBinary()
    picture = drawing(mol, label="<drawing>")
    root = ElementTree.fromstring(picture)
    assert root.get("aria-label") == "<drawing>"
    assert list(root)
    assert len(picture) < 4_000
    assert "#000000" not in picture  # black would vanish on a dark page
    assert mol.ToBinary() == before
