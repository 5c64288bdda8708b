"""MDL SDF and mol files, V2000 and V3000, one record at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from polydit.core.errors import InputError
from polydit.molgen.data.conformers import embed
from polydit.molgen.data.interop import from_rdkit
from polydit.molgen.data.readers.text import MAX_ATOMS, MAX_RECORD_BYTES, Records, Text, rejected, typed
from polydit.molgen.data.structure import Structure

if TYPE_CHECKING:
    from rdkit.Chem import Mol

EMBED_SEED = 0  # of records that are drawn in two dimensions
_V3000_COUNT = re.compile(r"^M  V30 COUNTS (\d+)", re.MULTILINE)
_FIELD = re.compile(r"^>.*?<([^>]*)>.*\n((?:.*\S.*\n?)*)", re.MULTILINE)


def read_sdf(text: Text) -> Records:
    """One structure per record, hydrogens as they are written, bonds as stated even where they break valence.

    A record drawn in two dimensions is given hydrogens and ETKDG + MMFF94 positions.
    """
    for row, record in enumerate(split_records(text.lines), 1):
        source = text.where(row)
        try:
            yield parse_record(record, default_id=f"{text.stem}-{row}", source=source)
        except InputError as error:
            yield rejected(source, error)


def split_records(lines: Iterator[str]) -> Iterator[str]:
    """Texts between `$$$$` lines; what is longer than a record may be is cut, so that it is refused cheaply."""
    parts: list[str] = []
    size = 0
    for line in lines:
        if line.startswith("$$$$"):
            yield "".join(parts)
            parts, size = [], 0
        elif size <= MAX_RECORD_BYTES:
            parts.append(line)
            size += len(line)
    if any(part.strip() for part in parts):
        yield "".join(parts)


def parse_record(record: str, *, default_id: str, source: str) -> Structure:
    """Structure of one record without its `$$$$`.

    Raises:
        InputError: The record is empty, too large, no mol block, or cannot be given positions.
    """
    from rdkit import Chem, rdBase

    if not record.strip():
        raise InputError("the record is empty")
    if len(record) > MAX_RECORD_BYTES:
        raise InputError(f"the record is longer than {MAX_RECORD_BYTES >> 20} MiB")
    counts = _V3000_COUNT.search(record)
    if counts and int(counts[1]) > MAX_ATOMS:
        raise InputError(f"{counts[1]} atoms are too many", expected=f"<= {MAX_ATOMS}")
    block, end, fields = record.partition("M  END")
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(block + end, sanitize=False, removeHs=False, strictParsing=False)
    if mol is None or not end:
        raise InputError("it is no complete mol block", expected='atom and bond lines up to "M  END"')
    if mol.GetNumAtoms() == 0:
        raise InputError("it has no atoms")
    mol = with_positions(_aromatic(mol))
    properties = {name: typed(value.strip()) for name, value in _FIELD.findall(fields)}
    name = record.partition("\n")[0].strip()
    return from_rdkit(mol, id=name or default_id, source=source, properties=properties)


def _aromatic(mol: Mol) -> Mol:
    """Sanitised if chemistry allows, else as stated: a wrong valence is for the evaluation to judge."""
    from rdkit import Chem

    sane = Chem.Mol(mol)
    return mol if Chem.SanitizeMol(sane, catchErrors=True) else sane


def with_positions(mol: Mol) -> Mol:
    """The molecule itself if it has 3D positions, else with hydrogens and an ETKDG + MMFF94 conformer.

    Raises:
        InputError: It is no valid molecule, or cannot be embedded.
    """
    from rdkit import Chem

    if mol.GetNumConformers() and mol.GetConformer().Is3D():
        return mol
    try:
        Chem.SanitizeMol(mol)
    except Chem.MolSanitizeException as error:
        raise InputError(f"its bonds make no molecule: {error}") from error
    mol, _ = embed(mol, seed=EMBED_SEED)
    return mol
