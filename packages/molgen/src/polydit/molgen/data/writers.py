"""The text of one record in SDF, XYZ, extxyz or CIF. Properties (seed, model, SMILES ...) travel with it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from polydit.core.errors import InputError
from polydit.molgen.data.structure import Structure

Format = Literal["sdf", "xyz", "extxyz", "cif"]

CIF_PREFIX = "_polydit_"  # data names of our properties in a CIF; readers of CIF skip names they do not know
CIF_DIGITS = 8  # significant figures of cell and coordinates
_RESERVED = {
    "Lattice",
    "Properties",
    "pbc",
    "id",
    "spacegroup",
}  # names that mean something else in extxyz or CIF


def render(structure: Structure, format: Format) -> str:
    """Text of one record, ending in a newline; records of SDF, XYZ and extxyz may be concatenated.

    Raises:
        InputError: CIF is asked for a molecule.
    """
    return _WRITERS[format](_plain(structure))


def _plain(structure: Structure) -> Structure:
    """Id and properties on one line each: a second line would be read as something else in every format."""
    told = {
        _one_line(f"{key}_" if key in _RESERVED else key): _one_line(value)
        if isinstance(value, str)
        else value
        for key, value in structure.properties.items()
    }
    return replace(structure, id=_one_line(structure.id), properties=told)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def render_sdf(structure: Structure) -> str:
    """One MDL record; properties as data fields; bonds as stated, or perceived from the positions.

    Where no bonds can be perceived the record has atoms only: it is still the geometry that was sampled.
    """
    told = structure.properties.items()
    fields = [f">  <{re.sub('[<>]', '_', key)}>\n{_sdf_line(value)}\n\n" for key, value in told]
    return _mol_block(structure) + "".join(fields) + "$$$$\n"


def _mol_block(structure: Structure) -> str:
    from rdkit import Chem

    from polydit.molgen.data.interop import rdkit_skeleton, to_rdkit

    try:
        mol, sane = to_rdkit(structure), True
    except InputError:
        mol, sane = rdkit_skeleton(structure), False
    mol.SetProp("_Name", _sdf_line(structure.id))
    return str(Chem.MolToMolBlock(mol, kekulize=sane))


def _sdf_line(value: object) -> str:
    """A value that neither ends the record nor begins a field."""
    text = str(value)
    return f" {text}" if text.startswith(("$$$$", ">")) else text


def render_xyz(structure: Structure) -> str:
    """Number of atoms, a comment line of id=... and properties, then element x y z in Å. A cell is not written."""
    from ase.io.extxyz import key_val_dict_to_str

    comment = key_val_dict_to_str({"id": structure.id, **structure.properties})
    atoms = zip(structure.symbols, structure.positions.tolist(), strict=True)
    lines = [f"{symbol:<2} {x:16.8f} {y:16.8f} {z:16.8f}" for symbol, (x, y, z) in atoms]
    return "\n".join([str(structure.num_atoms), comment, *lines]) + "\n"


def render_extxyz(structure: Structure) -> str:
    """One extxyz frame; a crystal has Lattice and pbc, a molecule has neither."""
    from io import StringIO

    from ase.io.extxyz import write_xyz

    from polydit.molgen.data.interop import to_ase

    atoms = to_ase(structure)
    if structure.spacegroup:
        atoms.info["spacegroup"] = structure.spacegroup
    text = StringIO()
    write_xyz(text, [atoms], write_results=False)
    return text.getvalue()


def render_cif(structure: Structure) -> str:
    """CIF of the cell as it is, in P1; id, space group and properties as data names of our own.

    Raises:
        InputError: The structure is a molecule.
    """
    from pymatgen.io.cif import CifWriter

    from polydit.molgen.data.interop import to_pymatgen

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "No Pauling electronegativity")  # noble gases, sorted all the same
        text = str(CifWriter(to_pymatgen(structure), significant_figures=CIF_DIGITS))
    told: Mapping[str, object] = {
        "id": structure.id,
        **({"spacegroup": structure.spacegroup} if structure.spacegroup else {}),
        **structure.properties,
    }
    own = [f"{CIF_PREFIX}{re.sub(r'[^A-Za-z0-9_.-]', '_', key)}   {_cif_value(v)}" for key, v in told.items()]
    head, block, rest = text.partition("data_")
    name, _, rest = rest.partition("\n")
    return head + block + "\n".join([name, *own, rest])


def _cif_value(value: object) -> str:
    text = str(value)
    if isinstance(value, (int, float)):
        return text
    quote = "'" if "'" not in text else '"'
    return f"{quote}{text.replace(quote, '_')}{quote}"


_WRITERS: dict[str, Callable[[Structure], str]] = {
    "sdf": render_sdf,
    "xyz": render_xyz,
    "extxyz": render_extxyz,
    "cif": render_cif,
}
