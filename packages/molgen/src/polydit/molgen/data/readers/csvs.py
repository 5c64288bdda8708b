"""CSV tables with a column of CIFs (MP20, Perov-5, Carbon-24, mattergen) or of SMILES."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace

from polydit.core.errors import InputError
from polydit.molgen.data.readers.cif import parse_cif
from polydit.molgen.data.readers.smiles import parse_smiles
from polydit.molgen.data.readers.text import MAX_LINE_BYTES, Records, Text, rejected, typed, whole_number
from polydit.molgen.data.structure import Structure

SMILES_COLUMNS = ("smiles", "SMILES", "canonical_smiles")
ID_COLUMNS = ("material_id", "mp_id", "structure_id", "id", "name")
SPACEGROUP_COLUMNS = ("spacegroup", "spacegroup.number", "spacegroup_number")


def read_csv(text: Text) -> Records:
    """One structure per row; the other columns become properties.

    Raises:
        InputError: The table has neither a column `cif` nor one of SMILES.
    """
    csv.field_size_limit(MAX_LINE_BYTES)  # a MOF's CIF passes the default of 128 KiB
    table = csv.DictReader(text.lines)
    columns = table.fieldnames or []
    smiles = next((name for name in SMILES_COLUMNS if name in columns), None)
    if "cif" not in columns and smiles is None:
        raise InputError(
            "the table has no structures", where=text.name, expected="a column named cif or smiles"
        )
    for row, cells in _rows(table, text):
        source = text.where(row)
        if isinstance(cells, csv.Error):
            yield rejected(source, f"the rest of the table cannot be read: {cells}")
            return
        try:
            yield _parse(cells, "cif" if "cif" in columns else str(smiles), f"{text.stem}-{row}", source)
        except InputError as error:
            yield rejected(source, error)


def _rows(table: csv.DictReader[str], text: Text) -> Iterator[tuple[int, dict[str, str] | csv.Error]]:
    """Rows counted from 1 below the header; an unclosed quote swallows what follows and ends as an error."""
    row = 0
    while True:
        row += 1
        try:
            yield row, next(table)
        except StopIteration:
            return
        except csv.Error as error:
            yield row, error


def _parse(cells: Mapping[str, str], column: str, default_id: str, source: str) -> Structure:
    value = (cells.get(column) or "").strip()
    if not value:
        raise InputError(f"the column {column} is empty")
    named = next((cells[name] for name in ID_COLUMNS if cells.get(name)), default_id)
    parse = parse_cif if column == "cif" else parse_smiles
    structure = parse(value, default_id=named, source=source)
    spacegroup = max(whole_number(cells.get(name) or "") for name in SPACEGROUP_COLUMNS)
    skip = {column, None, "", *ID_COLUMNS, *SPACEGROUP_COLUMNS}
    stated = {name: typed(text) for name, text in cells.items() if name not in skip and text}
    return replace(
        structure,
        id=named,
        spacegroup=structure.spacegroup if structure.cell is None else spacegroup or structure.spacegroup,
        properties={**structure.properties, **stated},
    )
