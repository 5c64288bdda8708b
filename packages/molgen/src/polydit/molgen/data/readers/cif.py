"""CIF: crystals of MP20, Perov-5, Carbon-24, QMOF and of anyone."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from itertools import pairwise

from polydit.core.errors import InputError
from polydit.molgen.data.interop import from_pymatgen
from polydit.molgen.data.readers.text import MAX_ATOMS, Records, Text, rejected, typed, whole_number
from polydit.molgen.data.structure import Structure
from polydit.molgen.data.writers import CIF_PREFIX

_BLOCK = re.compile(r"^data_", re.MULTILINE)
_SPACEGROUP_NAMES = ("_space_group_IT_number", "_symmetry_Int_Tables_number")


def read_cif(text: Text) -> Records:
    """One crystal per `data_` block; symmetry is applied, the cell stays as it is."""
    try:
        blocks = split_blocks(text.all())
    except InputError as error:
        yield rejected(text.where(1), error)
        return
    for row, block in enumerate(blocks, 1):
        source = text.where(row)
        default_id = text.stem if len(blocks) == 1 else f"{text.stem}-{row}"
        try:
            yield parse_cif(block, default_id=default_id, source=source)
        except InputError as error:
            yield rejected(source, error)


def split_blocks(text: str) -> list[str]:
    """Texts that each begin with `data_`; the whole text if there is none, so that it is refused by name."""
    starts = [match.start() for match in _BLOCK.finditer(text)]
    return [text[start:end] for start, end in pairwise([*starts, len(text)])] or [text]


def parse_cif(text: str, *, default_id: str, source: str) -> Structure:
    """Crystal of one data block.

    The space group is the one that our writer or the file states; the P1 that pymatgen writes on every file says
    nothing about it and counts as unknown.

    Raises:
        InputError: The text is no CIF with a cell and atoms, or a site is partly occupied.
    """
    from pymatgen.io.cif import CifParser

    if "_atom_site" not in text or "_cell_length_a" not in text:
        raise InputError(
            "it is no CIF of a crystal", expected="_cell_length_a ... and a loop of _atom_site_..."
        )
    if text.count("\n") > MAX_ATOMS:
        raise InputError("it has too many lines", expected=f"<= {MAX_ATOMS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pymatgen reports each rounding of a coordinate to a fraction
            parser = CifParser.from_str(text)
            crystals = parser.parse_structures(primitive=False)
            stated: Mapping[str, object] = next(iter(parser.as_dict().values()))
    except Exception as error:  # pymatgen raises whatever its dictionary look-ups and arithmetic raise
        raise InputError(f"pymatgen cannot read the CIF: {_sentence(error)}") from error
    told = {key.removeprefix(CIF_PREFIX): str(v) for key, v in stated.items() if key.startswith(CIF_PREFIX)}
    spacegroup = whole_number(told.pop("spacegroup", "")) or _stated_spacegroup(stated)
    return from_pymatgen(
        crystals[0],
        id=told.pop("id", default_id),
        spacegroup=spacegroup,
        source=source,
        properties={key: typed(value) for key, value in told.items()},
    )


def _stated_spacegroup(stated: Mapping[str, object]) -> int:
    for name in _SPACEGROUP_NAMES:
        number = whole_number(str(stated.get(name, "")))
        if 1 < number <= 230:
            return number
    return 0


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
