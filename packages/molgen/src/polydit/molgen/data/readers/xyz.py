"""XYZ and extended XYZ, all frames; QM9's dsgdb9nsd files have a second line and three last ones of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from polydit.core.errors import InputError
from polydit.molgen.data.readers.text import MAX_ATOMS, Records, Text, number, rejected, whole_number
from polydit.molgen.data.structure import NUMBERS, Structure

_COUNT = re.compile(r"\s*\d{1,9}\s*$")
_ID = re.compile(r"""(?:^|\s)id=(?:"([^"]+)"|([^\s"]+))""")
_MANY = re.compile(r"\s*\d{10,}\s*$")
# Units: GHz (A, B, C), D, a0^3, Hartree (homo, lumo, gap), a0^2, Hartree (zpve, U0, U, H, G), cal/mol/K.
_QM9_LABELS = ("A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "U0", "U", "H", "G", "Cv")
_QM9_TAIL = 3  # frequencies, SMILES, InChI


@dataclass(frozen=True, slots=True)
class Frame:
    """Lines of one frame: its comment, its atoms, and what QM9 writes below them."""

    comment: str
    atoms: list[str]
    tail: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Columns:
    """Where an atom line has its element and its x coordinate; the element may be a symbol or a number."""

    element: int = 0
    x: int = 1


def read_xyz(text: Text) -> Records:
    """One structure per frame. `Lattice` with a periodic `pbc` makes a crystal, anything else a molecule."""
    for row, frame in enumerate(split_frames(text.lines), 1):
        source = text.where(row)
        try:
            if isinstance(frame, str):
                raise InputError(frame)
            yield parse_frame(frame, default_id=f"{text.stem}-{row}", source=source)
        except InputError as error:
            yield rejected(source, error)


def split_frames(lines: Iterator[str]) -> Iterator[Frame | str]:
    """Frames, or one sentence about what stands in a frame's place.

    After a broken frame it goes on at the next line that is one integer; no frame takes memory before its lines came.
    """
    skipping, atoms = False, list[str]()
    head = next(lines, None)
    while head is not None:
        if not _COUNT.match(head) or int(head) > MAX_ATOMS:
            if head.strip() and not skipping:
                skipping = True
                yield _not_a_count(head.strip())
            head = next(lines, None)
            continue
        skipping = False
        count, comment, atoms = int(head), next(lines, ""), []
        head = next(lines, None)
        while head is not None and len(atoms) < count and not _COUNT.match(head):
            atoms.append(head)
            head = next(lines, None)
        if len(atoms) < count:
            yield f"it ends after {len(atoms)} of {count} atoms"
        elif head is not None and comment.startswith("gdb"):
            yield Frame(comment, atoms, [head, *islice(lines, _QM9_TAIL - 1)])
            head = next(lines, None)
        else:
            yield Frame(comment, atoms)


def _not_a_count(line: str) -> str:
    if _COUNT.match(line) or _MANY.match(line):
        return f"{line[:20]} atoms are too many; expected <= {MAX_ATOMS}"
    return f"its first line is {line[:60]!r}; expected a number of atoms"


def parse_frame(frame: Frame, *, default_id: str, source: str) -> Structure:
    """Structure of one frame.

    Raises:
        InputError: An atom line or the comment is not as the format says.
    """
    qm9 = frame.comment.startswith("gdb")
    info = {} if qm9 else parse_comment(frame.comment)
    numbers, positions = parse_atoms(frame.atoms, _columns(info))
    cell = _cell(info)
    skip = {"Lattice", "Properties", "pbc", "id", "spacegroup"}
    properties = (
        _qm9_properties(frame) if qm9 else {k: v for k, v in info.items() if k not in skip and _scalar(v)}
    )
    return Structure(
        id=_qm9_id(frame.comment) if qm9 else _id(frame.comment) or default_id,
        numbers=numbers,
        positions=positions,
        cell=cell,
        spacegroup=whole_number(str(info.get("spacegroup", ""))) if cell is not None else 0,
        source=source,
        properties=properties,
    )


def parse_comment(comment: str) -> Mapping[str, Any]:
    """Key=value pairs of an extxyz comment; empty where the line is a remark of another kind.

    Raises:
        InputError: `Lattice` is not nine numbers.
    """
    if "=" not in comment:
        return {}
    from ase.io.extxyz import key_val_str_to_dict

    try:
        pairs = key_val_str_to_dict(comment)
    except (ValueError, IndexError, RecursionError) as error:
        raise InputError(f"its second line is no extxyz comment: {error}") from error
    words = {
        key: value for key, value in pairs.items() if f"{key}=" in comment
    }  # words without = are remarks
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in words.items()}


def _scalar(value: object) -> bool:
    return isinstance(value, (str, int, float))


def _columns(info: Mapping[str, Any]) -> Columns:
    """Columns from `Properties=species:S:1:pos:R:3:...`; without it element x y z."""
    if "Properties" not in info:
        return Columns()
    parts = str(info["Properties"]).split(":")
    start, places = 0, {}
    for name, width in zip(parts[::3], parts[2::3], strict=False):
        places[name] = start
        start += whole_number(width)
    element = places.get("species", places.get("Z", places.get("numbers")))
    if element is None or "pos" not in places:
        raise InputError(
            f"Properties={info['Properties']} names no element or position", expected="species, pos"
        )
    return Columns(element, places["pos"])


def parse_atoms(lines: list[str], columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers (n) and positions (n, 3) in Å.

    Raises:
        InputError: A line has too few columns, an unknown element, or a coordinate that is no number.
    """
    numbers = np.empty(len(lines), np.int64)
    positions = np.empty((len(lines), 3))
    for index, line in enumerate(lines):
        words = line.split()
        try:
            numbers[index] = _element(words[columns.element])
            positions[index] = [number(word) for word in words[columns.x : columns.x + 3]]
        except (IndexError, KeyError, ValueError) as error:
            raise InputError(
                f"atom {index + 1} reads {line.strip()[:60]!r}", expected="element x y z"
            ) from error
    return numbers, positions


def _element(word: str) -> int:
    return int(word) if word.isdecimal() else NUMBERS[word]


def _cell(info: Mapping[str, Any]) -> np.ndarray | None:
    periodic = np.atleast_1d(info.get("pbc", "Lattice" in info))
    if periodic.dtype.kind not in "bi":
        raise InputError(f"pbc={info['pbc']} is not understood", expected='pbc="T T T" or "F F F"')
    if "Lattice" not in info or not periodic.any():
        return None
    if not periodic.all():
        raise InputError("it is periodic in one or two directions only", expected="a molecule or a crystal")
    return np.asarray(info["Lattice"], float).T  # ASE reads the nine numbers as columns


def _id(comment: str) -> str:
    match = _ID.search(comment)  # as text: a number would lose the zeros of 000012
    return match[1] or match[2] if match else ""


def _qm9_id(comment: str) -> str:
    return "_".join(comment.split()[:2])


def _qm9_properties(frame: Frame) -> dict[str, float | str]:
    values = frame.comment.split()[2:]
    if len(values) != len(_QM9_LABELS):
        raise InputError(
            f"its second line has {len(values)} values", expected=f"{len(_QM9_LABELS)} as in QM9"
        )
    try:
        properties: dict[str, float | str] = dict(zip(_QM9_LABELS, map(number, values), strict=True))
    except ValueError as error:
        raise InputError(f"its second line has a value that is no number: {error}") from error
    smiles = frame.tail[1].split() if len(frame.tail) == _QM9_TAIL else []
    return (
        {**properties, "smiles": smiles[-1]} if smiles else properties
    )  # the last one is of the relaxed geometry
