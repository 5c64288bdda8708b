"""The folder of a data set that we write: locked, gone on with by the same recipe only, replaced only when asked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file, naming_write_errors
from polydit.core.jobs.lock import FolderLock
from polydit.pointgen.data.pc15k import find_splits
from polydit.pointgen.data.recipe import SPLITS, ImportRecipe, MakeRecipe

ABOUT = "data.json"  # how the data were made, and whether they are all there; ours, beside PC15k's folders
_AGAIN = "Replace it with --overwrite, or choose another --out"


class DatasetFolder:
    """A folder that is being filled with shapes.

    Args:
        path: The folder.
        recipe: How the shapes are made.
        about: What an earlier call by the same recipe left in data.json.
    """

    def __init__(self, path: Path, recipe: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        self.path, self.recipe, self.about = path, recipe, about

    @property
    def is_complete(self) -> bool:
        """Whether an earlier call has finished it."""
        return bool(self.about.get("complete"))

    def say(self, **content: Any) -> dict[str, Any]:
        """Writes data.json anew: the recipe, the versions, and what is given."""
        versions = {package: version(package) for package in ("polydit-pointgen", "numpy", "trimesh")}
        about = {"recipe": self.recipe, "versions": versions, **content}
        with atomic_file(self.path / ABOUT) as handle:
            handle.write(f"{json.dumps(about, indent=1)}\n".encode())
        return about

    def finish(self, **content: Any) -> dict[str, Any]:
        """Says that everything is there, once it is on the disk."""
        if hasattr(os, "sync"):  # Windows has none, and writes back by itself
            os.sync()
        return self.say(complete=True, **content)


@contextmanager
def dataset_folder(
    out: Path, recipe: MakeRecipe | ImportRecipe, *, overwrite: bool
) -> Iterator[DatasetFolder]:
    """The folder, made and locked, without what a killed call was writing.

    Raises:
        InputError: Another process works in the folder, it cannot be written, it holds data of another recipe (the keys
            are named), or shapes that we did not write.
        PolyditError: Writing failed on the way.
    """
    plain = dict(json.loads(json.dumps(asdict(recipe))))
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(out)
    except OSError as error:
        raise InputError(f"it cannot be written: {error.strerror}", where=f"--out {out}") from error
    try:
        about = _earlier(out)
        if about is None and find_splits(out):
            hint = "Choose another --out"
            raise InputError(
                "it holds shapes that this command did not write", where=f"--out {out}", hint=hint
            )
        if about is not None and not overwrite:
            _refuse_other(out, about.get("recipe"), plain)
        with naming_write_errors(out):
            if about is not None and overwrite:
                DatasetFolder(out, about["recipe"], about).say(complete=False)
                _clear(out)
                about = None
            for leftover in out.glob("*/*/*.npy.tmp*"):
                leftover.unlink()
            folder = DatasetFolder(out, plain, about or {})
            if about is None:
                folder.say(complete=False)
            yield folder
    finally:
        lock.release()


def _earlier(out: Path) -> dict[str, Any] | None:
    """What data.json says; None if there is none."""
    try:
        about = json.loads((out / ABOUT).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError("it is damaged", where=str(out / ABOUT), hint="Choose another --out") from error
    if not isinstance(about, dict) or "recipe" not in about:
        raise InputError(
            "it is not of a data set of ours", where=str(out / ABOUT), hint="Choose another --out"
        )
    return about


def _refuse_other(out: Path, made: object, wanted: Mapping[str, Any]) -> None:
    made = made if isinstance(made, dict) else {}
    if changed := [key for key in sorted({*made, *wanted}) if made.get(key) != wanted.get(key)]:
        problem = f"it was made with other settings: {', '.join(changed)}"
        raise InputError(problem, where=f"--out {out}", hint=_AGAIN)


def _clear(out: Path) -> None:
    """Removes the shapes and nothing else; data.json goes last, since without it they would not be ours."""
    for pattern in ("*.npy", "*.npy.tmp*"):
        for path in [path for split in SPLITS for path in out.glob(f"*/{split}/{pattern}")]:
            path.unlink()
    for folder in [*(path for split in SPLITS for path in out.glob(f"*/{split}")), *out.iterdir()]:
        if folder.is_dir():
            with suppress(OSError):  # somebody keeps something else there
                folder.rmdir()
    (out / ABOUT).unlink()
