"""Choices of a crystal's cell: Niggli reduction and the space group."""

from __future__ import annotations

import warnings
from dataclasses import replace

from polydit.molgen.data.structure import Structure

SYMPREC = 0.1  # Å; tolerance with which ADiT's preprocessing finds space groups


def niggli(structure: Structure) -> Structure:
    """The same crystal in its Niggli-reduced cell (not made primitive), atoms inside the cell.

    ADiT's preprocessing: pymatgen's `get_reduced_structure()`, then the lattice rebuilt from its lengths and angles
    (a in the xz plane, c along z).

    Raises:
        InputError: The structure is a molecule.
    """
    from pymatgen.core import Lattice
    from pymatgen.core import Structure as PymatgenStructure

    from polydit.molgen.data.interop import from_pymatgen, to_pymatgen

    reduced = to_pymatgen(structure).get_reduced_structure()
    lattice = Lattice.from_parameters(*reduced.lattice.parameters)
    crystal = PymatgenStructure(lattice, reduced.species, reduced.frac_coords)
    found = from_pymatgen(crystal, id=structure.id)
    return replace(structure, numbers=found.numbers, positions=found.positions, cell=found.cell, bonds=None)


def find_spacegroup(structure: Structure, symprec: float = SYMPREC) -> int:
    """International number of a crystal's space group by spglib, 0 for a molecule or if none is found.

    Args:
        structure: Molecule or crystal.
        symprec: Tolerance in Å.
    """
    if structure.cell is None:
        return 0
    import spglib

    cell = (structure.cell, structure.frac_coords, structure.numbers)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # spglib 2.7: version 3 will raise what is None now
        try:
            dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
        except spglib.SpglibError:
            return 0
    return 0 if dataset is None else int(dataset.number)
