"""How the numbers of a robot map into the 128 slots: a TOML file per arm, ours or the user's.

A file names the sizes of state and action and lists parts: columns of the robot's vector, the slots they go to, and

    slot value = (column - offset) / scale      scale = the robot's size of one SI unit, or of a fully open gripper

or, for an orientation, `rotation` with the form in which the robot gives it; its six slots hold the 6D rotation.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from polydit.core.cli.config import unknown_key
from polydit.core.errors import InputError
from polydit.robopolicy.spaces.rotations import FORMS, six_from_matrix
from polydit.robopolicy.spaces.unified import SIZE, slot_indices

Side = Literal["state", "action"]

_FOLDER = files("polydit.robopolicy.spaces") / "arms"
_MAX_BYTES = 1 << 20  # a mapping is a page of text
_MAX_COLUMNS = 4096
_PART_KEYS = ("columns", "slots", "scale", "offset", "rotation")
_ARM_KEYS = ("summary", "control_frequency", "state_size", "action_size", "state", "action")


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Some columns and where they go.

    Args:
        columns: Columns of the robot's vector, from 0.
        slots: Slots of the unified vector; as many, or six for a rotation.
        scale: The robot's size of one unit, for each column; not for a rotation.
        offset: The robot's number at zero, for each column; not for a rotation.
        rotation: Form of the orientation, or "".
    """

    columns: np.ndarray
    slots: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    rotation: str = ""

    def to_slots(self, columns: Float[np.ndarray, "*rows c"]) -> Float[np.ndarray, "*rows n"]:
        """The robot's numbers as slot values."""
        if self.rotation:
            return six_from_matrix(FORMS[self.rotation].to_matrix(columns))
        return (columns - self.offset) / self.scale

    def to_columns(self, slots: Float[np.ndarray, "*rows n"]) -> Float[np.ndarray, "*rows c"]:
        """Slot values as the robot's numbers."""
        if self.rotation:
            return FORMS[self.rotation].from_matrix(FORMS["6d"].to_matrix(slots))
        return slots * self.scale + self.offset


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """A robot's state and action as parts of the unified vector; made by `load_arm`.

    Args:
        name: Its name, or the file it came from.
        summary: What robot and which convention this is.
        control_frequency: Usual actions per second; 0 = unknown.
        sizes: Length of the robot's vectors.
        parts: What goes where. Columns that no part names are left out, and are 0 on the way back.
    """

    name: str
    summary: str
    control_frequency: float
    sizes: Mapping[Side, int]
    parts: Mapping[Side, tuple[Part, ...]]

    @cached_property
    def masks(self) -> Mapping[Side, Bool[np.ndarray, " 128"]]:
        """True for the slots that this robot fills."""
        return {side: _mask(parts) for side, parts in self.parts.items()}

    def to_unified(
        self, values: Float[np.ndarray, "*rows c"], side: Side = "state"
    ) -> Float[np.ndarray, "*rows 128"]:
        """A robot's vectors in the 128 slots, float32; what the robot lacks is 0.

        Raises:
            InputError: The vectors have another length than the mapping says.
        """
        if values.shape[-1] != self.sizes[side]:
            problem = f"a {side} of {values.shape[-1]} numbers"
            raise InputError(problem, where=self.name, expected=f"{self.sizes[side]}")
        unified = np.zeros((*values.shape[:-1], SIZE), dtype=np.float32)
        for part in self.parts[side]:
            unified[..., part.slots] = part.to_slots(values[..., part.columns])
        return unified

    def from_unified(
        self, unified: Float[np.ndarray, "*rows 128"], side: Side = "action"
    ) -> Float[np.ndarray, "*rows c"]:
        """The robot's vectors out of the 128 slots, float32."""
        values = np.zeros((*unified.shape[:-1], self.sizes[side]), dtype=np.float32)
        for part in self.parts[side]:
            values[..., part.columns] = part.to_columns(unified[..., part.slots])
        return values


def _mask(parts: Iterable[Part]) -> Bool[np.ndarray, " 128"]:
    mask = np.zeros(SIZE, dtype=bool)
    for part in parts:
        mask[part.slots] = True
    return mask


# ---------------------------------------------------------------------------------------------------------
# Reading


def arm_names() -> tuple[str, ...]:
    """The arms that come with the package."""
    return tuple(
        sorted(
            entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml")
        )
    )


def load_arm(name: str) -> Arm:
    """An arm of the package by its name, or of a TOML file by its path.

    Raises:
        InputError: There is no such arm, or the file is no mapping; the message names the key.
    """
    if name in arm_names():
        return _parse((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"), name)
    path = Path(name)
    if path.suffix != ".toml" or not path.is_file():
        problem, known = f"there is no arm {name!r}", ", ".join(arm_names())
        raise InputError(problem, expected=f"one of {known}, or a TOML file")
    if path.stat().st_size > _MAX_BYTES:
        raise InputError(f"has {path.stat().st_size} bytes", where=name, expected=f"<= {_MAX_BYTES}")
    try:
        return _parse(path.read_text(encoding="utf-8"), name)
    except UnicodeDecodeError as error:
        raise InputError(f"not a TOML file: {error}", where=name) from error


def _parse(text: str, name: str) -> Arm:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not a TOML file: {error}", where=name) from error
    _refuse_unknown(table, _ARM_KEYS, name)
    frequency, summary = table.get("control_frequency", 0), table.get("summary", "")
    if type(frequency) not in (int, float) or not 0 <= frequency < 1e6 or not isinstance(summary, str):
        raise InputError("control_frequency is no number of Hz, or summary no text", where=name)
    sizes: dict[Side, int] = {"state": _size(table, "state", name), "action": _size(table, "action", name)}
    parts: dict[Side, tuple[Part, ...]] = {
        side: _parts(table.get(side, []), size, f"{name} {side}") for side, size in sizes.items()
    }
    return Arm(name=name, summary=summary, control_frequency=float(frequency), sizes=sizes, parts=parts)


def _size(table: Mapping[str, Any], side: str, name: str) -> int:
    size = table.get(f"{side}_size")
    if type(size) is not int or not 0 < size <= _MAX_COLUMNS:
        raise InputError(f"{side}_size is {size!r}", where=name, expected=f"1..{_MAX_COLUMNS}")
    return size


def _parts(tables: Any, size: int, where: str) -> tuple[Part, ...]:
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError("no parts", where=where, expected=f"[[{where.rpartition(' ')[2]}]] tables")
    parts = tuple(_part(table, size, f"{where} {number}") for number, table in enumerate(tables, 1))
    for what, rows in (("column", [p.columns for p in parts]), ("slot", [p.slots for p in parts])):
        values, counts = np.unique(np.concatenate(rows), return_counts=True)
        if (counts > 1).any():
            raise InputError(f"{what} {values[counts > 1][0]} is named twice", where=where)
    return parts


def _part(table: Mapping[str, Any], size: int, where: str) -> Part:
    _refuse_unknown(table, _PART_KEYS, where)
    columns: Any = table.get("columns")
    names: Any = table.get("slots")
    rotation = table.get("rotation", "")
    if not _is_list(columns, int) or not all(0 <= column < size for column in columns):
        raise InputError(f"columns is {columns!r}", where=where, expected=f"a list of 0..{size - 1}")
    if not _is_list(names, str):
        raise InputError(f"slots is {names!r}", where=where, expected="a list of names")
    expected = len(columns)
    if rotation:
        if rotation not in FORMS:
            raise unknown_key(str(rotation), list(FORMS), where=where, kind="rotation")
        expected = 6
        if len(columns) != FORMS[rotation].size or "scale" in table or "offset" in table:
            problem = f"a rotation {rotation} has {FORMS[rotation].size} columns, no scale and no offset"
            raise InputError(problem, where=where)
    if len(names) != expected:
        raise InputError(
            f"{len(columns)} columns and {len(names)} slots", where=where, expected=f"{expected} slots"
        )
    return Part(
        columns=np.array(columns),
        slots=slot_indices(names, where=where),
        scale=_numbers(table, "scale", 1.0, len(columns), where),
        offset=_numbers(table, "offset", 0.0, len(columns), where),
        rotation=rotation,
    )


def _numbers(table: Mapping[str, Any], key: str, default: float, count: int, where: str) -> np.ndarray:
    given = table.get(key, default)
    values = given if isinstance(given, list) else [given] * count
    if len(values) != count or not all(type(value) in (int, float) for value in values):
        raise InputError(f"{key} is {given!r}", where=where, expected=f"a number, or a list of {count}")
    numbers = np.array(values, dtype=np.float64)
    if not np.isfinite(numbers).all() or (key == "scale" and (numbers == 0).any()):
        raise InputError(f"{key} is {given!r}", where=where, expected="finite numbers, and no scale of 0")
    return numbers


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is kind for item in value)


def _refuse_unknown(table: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise unknown_key(key, known, where=where)
