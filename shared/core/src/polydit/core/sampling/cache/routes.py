"""Which module is computed at which step: the table that HarmoniCa's router becomes (Huang et al. 2025, 2410.01723).

A file of it is JSON::

    {"num_steps": 3, "modules": ["0.attn", "0.mlp"], "computed": [[1, 1], [0, 1], [1, 0]]}
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file, naming_write_errors

_LARGEST = (
    4 << 20
)  # bytes of a file: a thousand steps of the largest published transformers are a tenth of it
_KEYS = {"num_steps", "modules", "computed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteTable:
    """Modules and steps, for runs of its own number of steps only.

    Args:
        modules: Names such as "0.attn": the block's number, and its child.
        computed: For each step, whether each module is computed; False = what it gave last is taken once more.

    Raises:
        InputError: It is empty, a row has another length, or the first step reuses what was not computed yet.
    """

    modules: tuple[str, ...]
    computed: tuple[tuple[bool, ...], ...]

    def __post_init__(self) -> None:
        if not self.modules or not self.computed:
            raise InputError("no modules or no steps", where="route table")
        if len(set(self.modules)) < len(self.modules):
            raise InputError("a module stands in it twice", where="route table")
        for step, row in enumerate(self.computed):
            if len(row) != len(self.modules):
                raise InputError(
                    f"step {step} has {len(row)} entries",
                    where="route table",
                    expected=f"one for each of {len(self.modules)} modules",
                )
        if not all(self.computed[0]):
            raise InputError("the first step has nothing to be reused", where="route table")

    @property
    def num_steps(self) -> int:
        """Of the runs that it is for."""
        return len(self.computed)

    @property
    def full(self) -> tuple[bool, ...]:
        """For each step, whether all modules are computed."""
        return tuple(all(row) for row in self.computed)

    @property
    def reused(self) -> float:
        """Share of the modules of all steps that are not computed."""
        return 1.0 - sum(map(sum, self.computed)) / (self.num_steps * len(self.modules))

    def reuses(self, module: str, step: int) -> bool:
        """Whether a module is not computed at a step."""
        return not self.computed[step][self.modules.index(module)]

    @classmethod
    def read(cls, path: str | Path) -> RouteTable:
        """From a file that `write` wrote.

        Raises:
            InputError: There is no such file, it is too large, or it is no table.
        """
        path = Path(path)
        try:
            if (size := path.stat().st_size) > _LARGEST:
                raise InputError(
                    f"a file of {size} bytes is no route table",
                    where=str(path),
                    expected=f"at most {_LARGEST} bytes",
                )
            content = json.loads(path.read_bytes())
        except OSError as error:
            raise InputError(f"it cannot be read: {error.strerror}", where=str(path)) from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"it is no JSON ({error})", where=str(path)) from error
        return cls._of(content, str(path))

    @classmethod
    def _of(cls, content: Any, where: str) -> RouteTable:
        """What the file holds, if it is what it should be."""
        wrong = InputError(
            "it is no route table",
            where=where,
            expected="JSON that `polydit route` or `RouteTable.write` wrote",
        )
        if not isinstance(content, dict) or set(content) != _KEYS:
            raise wrong
        names, rows = content["modules"], content["computed"]
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise wrong
        if not (isinstance(rows, list) and all(isinstance(row, list) for row in rows)):
            raise wrong
        if any(type(value) is not int or value not in (0, 1) for row in rows for value in row):
            raise wrong
        if content["num_steps"] != len(rows):
            raise InputError(f"it has {len(rows)} rows for {content['num_steps']!r} steps", where=where)
        try:
            return cls(modules=tuple(names), computed=tuple(tuple(map(bool, row)) for row in rows))
        except InputError as error:
            raise InputError(error.problem, where=where, expected=error.expected) from error

    def write(self, path: Path) -> None:
        """Into a file, whole or not at all.

        Raises:
            PolyditError: The system refuses to write there.
        """
        rows = ",\n  ".join(json.dumps([int(value) for value in row]) for row in self.computed)
        text = (
            f'{{\n "num_steps": {self.num_steps},\n "modules": {json.dumps(self.modules)},\n'
            f' "computed": [\n  {rows}\n ]\n}}\n'
        )
        with naming_write_errors(path.parent), atomic_file(path) as handle:
            handle.write(text.encode())
