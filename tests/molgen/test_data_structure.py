"""The typed sample: what it derives, and what it refuses."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.molgen.data.cells import find_spacegroup, niggli
from polydit.molgen.data.structure import NUMBERS, SYMBOLS, Structure


def water(**changes: object) -> Structure:
    positions = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
    return Structure(**{"id": "water", "numbers": np.array([8, 1, 1]), "positions": positions, **changes})


def rock_salt(a: float = 5.64) -> Structure:
    cell = a / 2 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    return Structure(
        id="NaCl", numbers=np.array([11, 17]), positions=np.array([[0.0] * 3, [a / 2] * 3]), cell=cell
    )


def test_symbols_are_the_periodic_table() -> None:
    from ase.data import chemical_symbols

    assert list(SYMBOLS[1:]) == chemical_symbols[1:119]
    assert NUMBERS["Og"] == 118


def test_molecule() -> None:
    molecule = water()
    assert (molecule.kind, molecule.num_atoms, molecule.heavy_atoms) == ("molecule", 3, 1)
    assert molecule.formula == "H2O"
    assert molecule.symbols == ["O", "H", "H"]
    assert molecule.numbers.dtype == np.int64 and molecule.positions.dtype == np.float64
    assert not molecule.frac_coords.any() and not molecule.lengths.any() and not molecule.angles.any()


def test_formula_is_in_hill_order() -> None:
    numbers = np.array([7, 1, 6, 35, 6, 1])
    molecule = Structure(id="x", numbers=numbers, positions=np.arange(18.0).reshape(6, 3))
    assert molecule.formula == "C2H2BrN"


def test_crystal_lengths_and_angles() -> None:
    crystal = rock_salt()
    assert crystal.kind == "crystal"
    np.testing.assert_allclose(crystal.lengths, 5.64 / np.sqrt(2))
    np.testing.assert_allclose(crystal.angles, 60.0)
    np.testing.assert_allclose(crystal.frac_coords, [[0, 0, 0], [0.5, 0.5, 0.5]], atol=1e-12)


def test_angles_are_named_as_crystallographers_do() -> None:
    from pymatgen.core import Lattice

    lattice = Lattice.from_parameters(3, 4, 5, 70, 80, 95)
    crystal = Structure(
        id="x", numbers=np.array([6]), positions=np.zeros((1, 3)), cell=np.array(lattice.matrix)
    )
    np.testing.assert_allclose(crystal.lengths, [3, 4, 5])
    np.testing.assert_allclose(crystal.angles, [70, 80, 95])


def test_fractional_coordinates_are_wrapped_and_rounding_does_not_reach_one() -> None:
    positions = np.array([[-1e-9, 4.0, 2.5], [5.0, -1.0, 0.0]])
    crystal = Structure(id="x", numbers=np.array([6, 6]), positions=positions, cell=np.eye(3) * 5)
    np.testing.assert_allclose(crystal.frac_coords, [[0, 0.8, 0.5], [0, 0.8, 0]], atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"numbers": np.array([0, 1, 1])}, "atomic number"),
        ({"numbers": np.array([119, 1, 1])}, "atomic number"),
        ({"numbers": np.zeros(0, int), "positions": np.zeros((0, 3))}, "no atoms"),
        ({"positions": np.full((3, 3), np.nan)}, "not a finite number"),
        ({"positions": np.full((3, 3), np.inf)}, "not a finite number"),
        ({"positions": np.full((3, 3), 1e200)}, "1e\\+200 Å"),
        ({"cell": np.full((3, 3), 1e200)}, "1e\\+200 Å"),
        ({"cell": np.zeros((3, 3))}, "no volume"),
        ({"cell": np.array([[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1.0]])}, "no volume"),
        ({"bonds": np.array([[0, 3, 1]])}, "does not exist"),
        ({"spacegroup": 231}, "space group 231"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        water(source="file.xyz:7", **changes)
    assert caught.value.where == "file.xyz:7"


def test_niggli_keeps_the_crystal() -> None:
    """A skewed cell of the same lattice comes back short and with the same space group."""
    crystal = rock_salt()
    skewed = Structure(
        id="skewed",
        numbers=crystal.numbers,
        positions=crystal.positions,
        cell=np.array([[1, 0, 0], [2, 1, 0], [0, -3, 1]]) @ crystal.cell,
    )
    reduced = niggli(skewed)
    np.testing.assert_allclose(np.sort(reduced.lengths), crystal.lengths, atol=1e-6)
    assert find_spacegroup(reduced) == find_spacegroup(crystal) == 225
    assert abs(np.linalg.det(reduced.cell)) == pytest.approx(abs(np.linalg.det(crystal.cell)))
    assert ((reduced.frac_coords >= 0) & (reduced.frac_coords < 1)).all()


def test_niggli_lattice_is_in_the_canonical_orientation() -> None:
    """a in the xz plane, c along z: the cell is a function of lengths and angles alone."""
    cell = niggli(rock_salt()).cell
    assert cell is not None
    assert abs(cell[0, 1]) < 1e-9 and np.abs(cell[2, :2]).max() < 1e-9


def test_spacegroup_of_a_molecule_is_zero() -> None:
    assert find_spacegroup(water()) == 0


def test_importing_a_structure_imports_no_chemistry() -> None:
    code = (
        "import sys, polydit.molgen.data.structure; print([m for m in ('rdkit', 'ase', 'pymatgen', 'torch')"
        " if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
