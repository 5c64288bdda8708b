"""The folder of a data set that we write: locked, gone on with by the same recipe only, replaced only when asked."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file, naming_write_errors
from polydit.core.jobs.lock import FolderLock
from polydit.vstain.data.images import png_bytes
from polydit.vstain.data.layouts.manifest import ABOUT, COLUMNS, NAME
from polydit.vstain.data.recipe import SPLITS, ImportRecipe, MakeRecipe, Split
from polydit.vstain.pairs import StainPair

PARTS = ("HE", "IHC", "mask")
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"


class Tile(NamedTuple):
    """A tile's place in the data set."""

    id: str
    stain: str
    split: Split
    mpp: float | None

    @property
    def files(self) -> tuple[str, str, str]:
        """Its H&E, its stain and its mask, relative to the data set."""
        he, ihc, mask = (f"{self.split}/{part}/{self.id}.png" for part in PARTS)
        return he, ihc, mask

    def is_there(self, root: Path) -> bool:
        """Whether all its files are whole."""
        return all(_is_whole(root / file) for file in self.files)

    def write(self, root: Path, pair: StainPair) -> None:
        """Writes its files, each whole or not at all.

        Nothing is forced to the disk here: for thousands of small files that would take most of the time. `is_there`
        finds what a power cut has cost.

        Raises:
            OSError: The system refuses.
        """
        assert pair.mask is not None
        for file, image in zip(self.files, (pair.he, pair.ihc, pair.mask), strict=True):
            _write_whole(root / file, png_bytes(image))


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _is_whole(path: Path) -> bool:
    """Whether a PNG begins and ends as one; ours are renamed when written, so only lost blocks could be missing."""
    try:
        with path.open("rb") as handle:
            start = handle.read(len(_PNG_START))
            handle.seek(-len(_PNG_END), os.SEEK_END)
            return start == _PNG_START and handle.read() == _PNG_END
    except OSError:
        return False


class DatasetFolder:
    """A folder that is being filled with tiles.

    Args:
        path: The folder.
        recipe: How the tiles are made.
        about: What an earlier call by the same recipe left in data.json.
    """

    def __init__(self, path: Path, recipe: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        self.path, self.recipe, self.about = path, recipe, about

    def say(self, **content: Any) -> dict[str, Any]:
        """Writes data.json anew: the recipe, the versions, and what is given."""
        versions = {package: version(package) for package in ("polydit-vstain", "numpy", "pillow")}
        about = {"recipe": self.recipe, "versions": versions, **content}
        with atomic_file(self.path / ABOUT) as handle:
            handle.write(f"{json.dumps(about, indent=1)}\n".encode())
        return about

    def finish(self, tiles: Iterable[Tile], **content: Any) -> dict[str, Any]:
        """Writes the manifest, and says that everything is there once it is on the disk."""
        if hasattr(os, "sync"):  # Windows has none, and writes back by itself
            os.sync()
        counts: Counter[tuple[str, str]] = Counter()
        table = StringIO(newline="")
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(COLUMNS)
        for tile in tiles:
            mpp = "" if tile.mpp is None else f"{tile.mpp:g}"
            rows.writerow((tile.id, *tile.files, tile.stain, tile.split, mpp))
            counts[tile.stain, tile.split] += 1
        with atomic_file(self.path / NAME) as handle:
            handle.write(table.getvalue().encode())
        by_stain: dict[str, dict[str, int]] = {}
        for (stain, split), count in sorted(counts.items()):
            by_stain.setdefault(stain, {})[split] = count
        return self.say(complete=True, tiles=by_stain, **content)


@contextmanager
def dataset_folder(
    out: Path, recipe: MakeRecipe | ImportRecipe, *, overwrite: bool
) -> Iterator[DatasetFolder]:
    """The folder, made and locked, without what a killed call was writing.

    Raises:
        InputError: Another process works in the folder, it cannot be written, it holds data of another recipe (the keys
            are named), or a data set that we did not write.
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
        if about is None and any((out / name).exists() for name in (NAME, *SPLITS)):
            problem = "it holds a data set that this command did not write"
            raise InputError(problem, where=f"--out {out}", hint="Choose another --out")
        if about is not None and not overwrite:
            _refuse_other(out, about.get("recipe"), plain)
        with naming_write_errors(out):
            if about is not None and overwrite:
                DatasetFolder(out, about["recipe"], about).say(complete=False)
                _clear(out)
                about = None
            for leftover in [path for split in SPLITS for path in out.glob(f"{split}/*/*.png.tmp*")]:
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
        problem = "it is not of a data set of ours"
        raise InputError(problem, where=str(out / ABOUT), hint="Choose another --out")
    return about


def _refuse_other(out: Path, made: object, wanted: Mapping[str, Any]) -> None:
    made = made if isinstance(made, dict) else {}
    if changed := [key for key in sorted({*made, *wanted}) if made.get(key) != wanted.get(key)]:
        problem = f"it was made with other settings: {', '.join(changed)}"
        hint = "Replace it with --overwrite, or choose another --out"
        raise InputError(problem, where=f"--out {out}", hint=hint)


def _clear(out: Path) -> None:
    """Removes the tiles and nothing else; data.json goes last, since without it they would not be ours."""
    (out / NAME).unlink(missing_ok=True)
    parts = [out / split / part for split in SPLITS for part in PARTS]
    for path in [path for folder in parts for path in folder.glob("*.png*")]:
        path.unlink()
    for folder in [*parts, *(out / split for split in SPLITS)]:
        with suppress(OSError):  # it was never made, or somebody keeps something else there
            folder.rmdir()
    (out / ABOUT).unlink()
