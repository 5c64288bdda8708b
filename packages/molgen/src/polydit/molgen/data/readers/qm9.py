"""QM9 as PyTorch Geometric and DeepChem hand it out: gdb9.sdf, gdb9.sdf.csv and uncharacterized.txt side by side.

Ramakrishnan, Dral, Rupp, von Lilienfeld, Scientific Data 1, 140022 (2014). The 3,054 molecules whose relaxed geometry
is not the molecule they began as are rejected: 130,831 of 133,885 remain.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

from polydit.molgen.data.readers.sdf import read_sdf
from polydit.molgen.data.readers.text import Records, open_text, rejected, typed
from polydit.molgen.data.structure import Rejected

_INDEX = re.compile(r"\s*(\d+)\s+(?!compounds|molecules)\S")  # the last line counts them: "3054 compounds"
_NUMBER = re.compile(r"(?:gdb[ _]|dsgdb9nsd_)0*(\d+)")
_REASON = "listed in uncharacterized.txt: its relaxed geometry is another molecule"


def read_gdb9(path: Path) -> Records:
    """Molecules of gdb9.sdf with the properties of gdb9.sdf.csv, row by row, without the uncharacterized."""
    excluded = uncharacterized(path.parent)
    with open_text(path) as text:
        for row, (record, values) in enumerate(zip(read_sdf(text), _table(path), strict=False), 1):
            if row in excluded:
                yield rejected(text.where(row), _REASON)
            elif isinstance(record, Rejected):
                yield record
            else:
                yield replace(record, properties={**record.properties, **values})


def _table(sdf: Path) -> Iterator[dict[str, float | int | str]]:
    path = sdf.with_name(f"{sdf.name.removesuffix('.gz')}.csv")
    if not path.is_file():
        return repeat({})
    return chain(_rows(path), repeat({}))


def _rows(path: Path) -> Iterator[dict[str, float | int | str]]:
    with open_text(path) as text:
        for cells in csv.DictReader(text.lines):
            yield {name: typed(value) for name, value in cells.items() if name != "mol_id" and name and value}


def uncharacterized(folder: Path) -> set[int]:
    """Numbers, from 1, that uncharacterized.txt lists; empty without that file."""
    path = folder / "uncharacterized.txt"
    if not path.is_file():
        return set()
    with open_text(path) as text:
        return {int(match[1]) for line in text.lines if (match := _INDEX.match(line))}


def without_uncharacterized(records: Records, folder: Path) -> Records:
    """Records of dsgdb9nsd files, those listed in the folder's or its parent's uncharacterized.txt rejected."""
    excluded = uncharacterized(folder) or uncharacterized(folder.parent)
    for record in records:
        match = _NUMBER.search(record.id) if excluded and not isinstance(record, Rejected) else None
        yield rejected(record.source, _REASON) if match and int(match[1]) in excluded else record


def is_gdb9(path: Path) -> bool:
    """Whether a file is QM9's SDF by its name."""
    return path.name in ("gdb9.sdf", "gdb9.sdf.gz")


def is_dsgdb9nsd(name: str) -> bool:
    """Whether a file or archive is one of QM9's xyz files by its name."""
    return name.startswith("dsgdb9nsd")
