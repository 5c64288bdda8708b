"""VASP's POSCAR and CONTCAR."""

from __future__ import annotations

import warnings
from itertools import islice

from polydit.core.errors import InputError
from polydit.molgen.data.interop import from_pymatgen
from polydit.molgen.data.readers.text import MAX_ATOMS, Records, Text, rejected
from polydit.molgen.data.structure import NUMBERS, Structure

_HEAD_LINES = 7  # comment, scale, three vectors, elements, counts


def read_poscar(text: Text) -> Records:
    """The one crystal of the file."""
    source = text.where(1)
    try:
        yield parse_poscar(text.all(), default_id=text.stem, source=source)
    except InputError as error:
        yield rejected(source, error)


def parse_poscar(text: str, *, default_id: str, source: str) -> Structure:
    """Crystal of a POSCAR that names its elements (VASP 5 and later).

    Raises:
        InputError: The text is no such POSCAR.
    """
    from pymatgen.io.vasp import Poscar

    head = list(islice(text.splitlines(), _HEAD_LINES))
    elements, counts = (head[5].split(), head[6].split()) if len(head) == _HEAD_LINES else ([], [])
    if not elements or not all(name.split("_")[0].split("/")[0] in NUMBERS for name in elements):
        raise InputError(
            "its sixth line names no elements", expected="element symbols, as VASP 5 writes them"
        )
    if (
        not all(count.isdecimal() and len(count) < 10 for count in counts)
        or sum(map(int, counts)) > MAX_ATOMS
    ):
        raise InputError(
            f"its seventh line is {head[6][:60]!r}", expected=f"numbers of atoms, together <= {MAX_ATOMS}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            crystal = Poscar.from_str(text, read_velocities=False).structure
    except Exception as error:  # pymatgen raises whatever its string splitting raises
        raise InputError(f"pymatgen cannot read the POSCAR: {type(error).__name__}: {error}") from error
    return from_pymatgen(crystal, id=default_id, source=source, properties={"title": head[0].strip()})
