"""What commands share that measure files against each other: the folder of the figures, and what was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import click

from polydit.core.cli.options import SharedOption
from polydit.core.cli.output import Output
from polydit.core.errors import InputError

SOME_ITEMS_FAILED = 3
_NAMED_REJECTIONS = 10  # on the terminal; rejected.csv has all of them

figures_option = SharedOption(
    "--out", "-o", type=click.Path(path_type=Path), default=None, show_default="nothing is written", metavar="DIR"
)  # fmt: skip
replace_option = SharedOption(
    "--overwrite", is_flag=True, help="Replace an evaluation that is in --out already."
)


@dataclass(frozen=True, slots=True)
class FiguresFolder:
    """The folder of one evaluation.

    Args:
        path: The folder; None writes nothing.
        names: All files that an evaluation may leave. The first is always one of them and is written last: where it
            is, the evaluation is whole.
    """

    path: Path | None
    names: Sequence[str]

    def check(self, *, overwrite: bool) -> None:
        """Before anything is read.

        Raises:
            InputError: It holds an evaluation that is not to be replaced, or is a file.
        """
        if self.path is None:
            return
        where = f"--out {self.path}"
        if (self.path / self.names[0]).exists() and not overwrite:
            hint = "Add --overwrite to replace it."
            raise InputError("it holds an evaluation already", where=where, hint=hint)
        if self.path.exists() and not self.path.is_dir():
            raise InputError("is a file, not a folder", where=where)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Made and locked: no other evaluation writes into it meanwhile.

        Raises:
            InputError: Another one does.
        """
        if self.path is None:
            yield
            return
        from polydit.core.jobs.files import naming_write_errors
        from polydit.core.jobs.lock import FolderLock

        with naming_write_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(self.path)
        try:
            yield
        finally:
            lock.release()

    def write(self, files: Mapping[str, bytes]) -> None:
        """Writes the files in place of those of an evaluation that --overwrite replaces."""
        if self.path is None:
            return
        from polydit.core.jobs.files import atomic_file, naming_write_errors

        with naming_write_errors(self.path):
            for name in self.names:
                (self.path / name).unlink(missing_ok=True)
            for name in reversed(self.names):
                if name in files:
                    with atomic_file(self.path / name) as handle:
                        handle.write(files[name])


@runtime_checkable
class Rejected(Protocol):
    """What a domain's readers give for an item that cannot be read."""

    @property
    def source(self) -> str:
        """Where it stands."""

    @property
    def reason(self) -> str:
        """What is wrong with it."""


def name_rejected(rejected: Sequence[Rejected], output: Output) -> None:
    """Names the first of the items that were left out."""
    for entry in rejected[:_NAMED_REJECTIONS]:
        output.warn(f"{entry.source}: {entry.reason}")
    if len(rejected) > _NAMED_REJECTIONS:
        output.warn(f"and {len(rejected) - _NAMED_REJECTIONS} more; --out names all of them in rejected.csv")


def exit_for(rejected: Sequence[Rejected]) -> None:
    """Ends the command, with the exit code of a run some of whose items failed if any was left out."""
    if rejected:
        click.get_current_context().exit(SOME_ITEMS_FAILED)
