"""The folder of a data set that we write: locked, gone on with by the same recipe only, replaced only when asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file, naming_write_errors
from polydit.core.jobs.lock import FolderLock

ABOUT = "data.json"  # how the data were made, and whether they are all there
_ELSEWHERE = "Choose another --out"


@dataclass(frozen=True, kw_only=True)
class DatasetKind:
    """How a kind of data set lies in its folder.

    Args:
        noun: What the folder holds, in words.
        is_there: Whether such data lie in a folder; without data.json they are somebody else's.
        files: Patterns of the files that we write besides data.json, in the order in which they are removed.
        folders: Patterns of the folders that they lie in, inner ones first.
        packages: Distributions that decide the bytes; data.json names their versions.
    """

    noun: str
    is_there: Callable[[Path], bool]
    files: tuple[str, ...]
    folders: tuple[str, ...]
    packages: tuple[str, ...]


class DatasetFolder:
    """A folder that is being filled.

    Args:
        path: The folder.
        recipe: How the data are made.
        about: What an earlier call by the same recipe left in data.json.
        packages: Distributions whose versions data.json names.
    """

    def __init__(
        self, path: Path, recipe: Mapping[str, Any], about: Mapping[str, Any], packages: Iterable[str]
    ) -> None:
        self.path, self.recipe, self.about = path, recipe, about
        self._versions = {package: version(package) for package in packages}

    @property
    def is_complete(self) -> bool:
        """Whether an earlier call has finished it."""
        return bool(self.about.get("complete"))

    def say(self, **content: Any) -> dict[str, Any]:
        """Writes data.json anew: the recipe, the versions, and what is given."""
        about = {"recipe": self.recipe, "versions": self._versions, **content}
        with atomic_file(self.path / ABOUT) as handle:
            handle.write(f"{json.dumps(about, indent=1)}\n".encode())
        return about

    def finish(self, lists: Mapping[str, bytes] | None = None, **content: Any) -> dict[str, Any]:
        """Says that everything is there, once it is on the disk.

        Args:
            lists: Files by name that say what is there, written once it is on the disk.
            content: For data.json.
        """
        if hasattr(os, "sync"):  # Windows has none, and writes back by itself
            os.sync()
        for name, text in (lists or {}).items():
            with atomic_file(self.path / name) as handle:
                handle.write(text)
        return self.say(complete=True, **content)


@contextmanager
def dataset_folder(
    out: Path, recipe: Mapping[str, Any], kind: DatasetKind, *, overwrite: bool
) -> Iterator[DatasetFolder]:
    """The folder, made and locked, without what a killed call was writing.

    Args:
        out: Its path.
        recipe: How the data are made, as plain data.
        kind: What lies where.
        overwrite: Replace data of ours that another recipe made.

    Raises:
        InputError: Another process works in the folder, it cannot be written, it holds data of another recipe (the keys
            are named), or data that we did not write.
        PolyditError: Writing failed on the way.
    """
    plain = dict(json.loads(json.dumps(recipe)))
    with locked_folder(out):
        about = _earlier(out)
        if about is None and kind.is_there(out):
            problem = f"it holds {kind.noun} that this command did not write"
            raise InputError(problem, where=f"--out {out}", hint=_ELSEWHERE)
        if about is not None and not overwrite:
            _refuse_other(out, about["recipe"], plain)
        with naming_write_errors(out):
            if about is not None and overwrite:
                DatasetFolder(out, about["recipe"], about, kind.packages).say(complete=False)
                _clear(out, kind)
                about = None
            _remove(out, [f"{pattern}.tmp*" for pattern in (ABOUT, *kind.files)])
            folder = DatasetFolder(out, plain, about or {}, kind.packages)
            if about is None:
                folder.say(complete=False)
            yield folder


@contextmanager
def locked_folder(out: Path) -> Iterator[None]:
    """Makes the folder, and holds its lock.

    Raises:
        InputError: Another process works in it, or it cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(out)
    except OSError as error:
        raise InputError(f"it cannot be written: {error.strerror}", where=f"--out {out}") from error
    try:
        yield
    finally:
        lock.release()


def _earlier(out: Path) -> dict[str, Any] | None:
    """What data.json says; None if there is none."""
    try:
        about = json.loads((out / ABOUT).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError("it is damaged", where=str(out / ABOUT), hint=_ELSEWHERE) from error
    if not isinstance(about, dict) or "recipe" not in about:
        raise InputError("it is not of a data set of ours", where=str(out / ABOUT), hint=_ELSEWHERE)
    return about


def _refuse_other(out: Path, made: object, wanted: Mapping[str, Any]) -> None:
    made = made if isinstance(made, dict) else {}
    if changed := [key for key in sorted({*made, *wanted}) if made.get(key) != wanted.get(key)]:
        problem = f"it was made with other settings: {', '.join(changed)}"
        hint = "Replace it with --overwrite, or choose another --out"
        raise InputError(problem, where=f"--out {out}", hint=hint)


def _clear(out: Path, kind: DatasetKind) -> None:
    """Removes the data and nothing else; data.json goes last, since without it they would not be ours."""
    _remove(out, [name for pattern in kind.files for name in (pattern, f"{pattern}.tmp*")])
    for folder in [path for pattern in kind.folders for path in out.glob(pattern) if path.is_dir()]:
        with suppress(OSError):  # somebody keeps something else there
            folder.rmdir()
    (out / ABOUT).unlink()


def _remove(out: Path, patterns: Iterable[str]) -> None:
    for path in [path for pattern in patterns for path in out.glob(pattern)]:
        path.unlink()
