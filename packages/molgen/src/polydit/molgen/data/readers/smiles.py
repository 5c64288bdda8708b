"""SMILES, one a line with an optional name; positions come from ETKDG + MMFF94."""

from __future__ import annotations

from polydit.core.errors import InputError
from polydit.molgen.data.interop import from_rdkit
from polydit.molgen.data.readers.sdf import with_positions
from polydit.molgen.data.readers.text import Records, Text, rejected
from polydit.molgen.data.structure import Structure

MAX_SMILES = 2000  # characters


def read_smiles(text: Text) -> Records:
    """One molecule per line "SMILES [name]"; blank lines, lines that begin with # and a header line are skipped."""
    for row, line in enumerate(text.lines, 1):
        smiles, _, name = line.strip().partition(" ") if "\t" not in line else line.strip().partition("\t")
        if (
            not smiles
            or smiles.startswith("#")
            or (row == 1 and smiles.lower() in ("smiles", "canonical_smiles"))
        ):
            continue
        source = text.where(row)
        try:
            yield parse_smiles(smiles, default_id=name.strip() or f"{text.stem}-{row}", source=source)
        except InputError as error:
            yield rejected(source, error)


def parse_smiles(smiles: str, *, default_id: str, source: str) -> Structure:
    """Molecule with hydrogens and positions; its SMILES (canonical, without stereo) is a property.

    Raises:
        InputError: The SMILES is wrong, or the molecule cannot be embedded.
    """
    from rdkit import Chem, rdBase

    if len(smiles) > MAX_SMILES:
        raise InputError(f"the SMILES is longer than {MAX_SMILES} characters")
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or mol.GetNumAtoms() == 0:
        raise InputError(f"RDKit cannot read the SMILES {smiles[:80]!r}")
    canonical = Chem.MolToSmiles(mol, isomericSmiles=False)
    return from_rdkit(with_positions(mol), id=default_id, source=source, properties={"smiles": canonical})
