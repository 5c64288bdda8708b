"""Every writer through its reader, and the objects of RDKit, ASE and pymatgen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.molgen.data.interop import from_ase, from_pymatgen, to_ase, to_pymatgen, to_rdkit
from polydit.molgen.data.readers import read_structures
from polydit.molgen.data.structure import Structure
from polydit.molgen.data.writers import render

PROPERTIES = {"seed": 7, "model": "starter v1", "energy": -1.25, "remark": "a 'quoted' \"word\", = and <x>"}
PYRIDINE_N_OXIDE = "c1cc[n+]([O-])cc1"


@pytest.fixture(scope="module")
def molecule(tmp_path_factory: pytest.TempPathFactory) -> Structure:
    path = tmp_path_factory.mktemp("smiles") / "a.smi"
    path.write_text(f"{PYRIDINE_N_OXIDE} 000012\n")
    (structure,) = read_structures(path)
    assert isinstance(structure, Structure)
    return replace(structure, properties=PROPERTIES)


@pytest.fixture
def crystal() -> Structure:
    from pymatgen.core import Lattice

    lattice = np.array(Lattice.from_parameters(3.1, 4.2, 5.3, 81, 92, 103).matrix)
    frac = np.array([[0.01, 0.2, 0.3], [0.123456, 0.654321, 0.9]])
    return Structure(
        id="000012",
        numbers=np.array([22, 8]),
        positions=frac @ lattice,
        cell=lattice,
        spacegroup=2,
        properties=PROPERTIES,
    )


def read_back(text: str, path: Path) -> Structure:
    path.write_text(text)
    (structure,) = read_structures(path)
    assert isinstance(structure, Structure), structure
    return structure


def test_sdf_round_trip(molecule: Structure, tmp_path: Path) -> None:
    back = read_back(render(molecule, "sdf"), tmp_path / "a.sdf")
    assert back.id == "000012"
    assert back.properties == PROPERTIES
    np.testing.assert_array_equal(back.numbers, molecule.numbers)
    np.testing.assert_allclose(back.positions, molecule.positions, atol=5e-5)
    np.testing.assert_array_equal(back.bonds, molecule.bonds)
    np.testing.assert_array_equal(back.charges, molecule.charges)
    assert (molecule.bonds[:, 2] == 12).sum() == 6 and set(molecule.charges) == {-1, 0, 1}


@pytest.mark.parametrize("format", ["xyz", "extxyz"])
def test_xyz_round_trip(molecule: Structure, tmp_path: Path, format: str) -> None:
    back = read_back(render(molecule, format), tmp_path / f"a.{format}")
    assert (back.id, back.kind, back.bonds) == ("000012", "molecule", None)
    assert back.properties == PROPERTIES
    np.testing.assert_array_equal(back.numbers, molecule.numbers)
    np.testing.assert_allclose(back.positions, molecule.positions, atol=1e-8)


@pytest.mark.parametrize("format", ["cif", "extxyz"])
def test_crystal_round_trip(crystal: Structure, tmp_path: Path, format: str) -> None:
    back = read_back(render(crystal, format), tmp_path / f"a.{format}")
    assert (back.id, back.spacegroup, back.kind) == ("000012", 2, "crystal")
    assert {key: back.properties[key] for key in ("seed", "model", "energy")} == {
        key: PROPERTIES[key] for key in ("seed", "model", "energy")
    }
    np.testing.assert_array_equal(back.numbers, crystal.numbers)
    np.testing.assert_allclose(back.lengths, crystal.lengths, atol=1e-6)
    np.testing.assert_allclose(back.angles, crystal.angles, atol=1e-6)
    np.testing.assert_allclose(back.frac_coords, crystal.frac_coords, atol=1e-6)


def test_records_may_be_concatenated(molecule: Structure, tmp_path: Path) -> None:
    for format in ("sdf", "xyz", "extxyz"):
        path = tmp_path / f"a.{format}"
        path.write_text(render(molecule, format) * 3)
        assert sum(isinstance(entry, Structure) for entry in read_structures(path)) == 3


def test_properties_cannot_break_a_record(molecule: Structure, tmp_path: Path) -> None:
    hostile = {
        "a": "x\n\n$$$$\n",
        "b": "$$$$",
        "c": ">  <d>",
        "k <ey": "1\n2",
        "e": "",
        "pbc": "T",
        "Lattice": "1",
    }
    for format in ("sdf", "xyz", "extxyz"):
        path = tmp_path / f"a.{format}"
        path.write_text(render(replace(molecule, properties=hostile), format) * 2)
        entries = list(read_structures(path))
        assert [isinstance(entry, Structure) for entry in entries] == [True, True], entries


def test_hostile_text_in_a_cif(crystal: Structure, tmp_path: Path) -> None:
    hostile = {"a": "x\ndata_other\nloop_", "b c": "'", "d": "\"'", "e": "", "f": ";", "g": "# no remark"}
    back = read_back(render(replace(crystal, properties=hostile), "cif"), tmp_path / "a.cif")
    np.testing.assert_array_equal(back.numbers, crystal.numbers)


def test_sdf_of_a_crystal_or_an_atom_soup_keeps_the_geometry(crystal: Structure, tmp_path: Path) -> None:
    back = read_back(render(replace(crystal, bonds=None), "sdf"), tmp_path / "a.sdf")
    np.testing.assert_allclose(back.positions, crystal.positions, atol=5e-5)


def test_sdf_without_stated_bonds_perceives_them(molecule: Structure, tmp_path: Path) -> None:
    from rdkit import Chem

    bare = replace(molecule, bonds=None, charges=None)
    back = read_back(render(bare, "sdf"), tmp_path / "a.sdf")
    assert Chem.MolToSmiles(Chem.RemoveHs(to_rdkit(back))) == Chem.CanonSmiles(PYRIDINE_N_OXIDE)


def test_sdf_states_broken_valence_as_it_is(molecule: Structure, tmp_path: Path) -> None:
    broken = replace(molecule, charges=None, bonds=np.array([[0, 1, 3], [0, 2, 3]]))
    back = read_back(render(broken, "sdf"), tmp_path / "a.sdf")
    assert back.bonds is not None and sorted(back.bonds[:, 2].tolist()) == [3, 3]
    aromatic = read_back(render(replace(molecule, charges=None), "sdf"), tmp_path / "b.sdf")
    np.testing.assert_array_equal(aromatic.bonds, molecule.bonds)


def test_cif_of_a_molecule(molecule: Structure) -> None:
    with pytest.raises(InputError, match="it is a molecule"):
        render(molecule, "cif")


def test_to_rdkit_has_positions_bonds_and_charges(molecule: Structure) -> None:
    from rdkit import Chem

    mol = to_rdkit(molecule)
    assert Chem.MolToSmiles(Chem.RemoveHs(mol)) == Chem.CanonSmiles(PYRIDINE_N_OXIDE)
    np.testing.assert_allclose(mol.GetConformer().GetPositions(), molecule.positions)


def test_to_rdkit_refuses_broken_valence(molecule: Structure) -> None:
    with pytest.raises(InputError, match="make no molecule"):
        to_rdkit(replace(molecule, charges=None))


def test_ase_and_pymatgen_round_trips(molecule: Structure, crystal: Structure) -> None:
    for structure in (molecule, crystal):
        back = from_ase(to_ase(structure), id="x")
        assert back.kind == structure.kind and dict(back.properties) == PROPERTIES
        np.testing.assert_array_equal(back.positions, structure.positions)
    back = from_pymatgen(to_pymatgen(crystal), id="x")
    np.testing.assert_allclose(back.frac_coords, crystal.frac_coords, atol=1e-12)
    with pytest.raises(InputError, match="it is a molecule"):
        to_pymatgen(molecule)


def test_slab_is_neither_molecule_nor_crystal() -> None:
    from ase.build import fcc111

    with pytest.raises(InputError, match="one or two directions"):
        from_ase(fcc111("Al", (1, 1, 2), vacuum=5), id="slab")
