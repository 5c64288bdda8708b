"""A CSV file with a row per pair, and our own data sets, of which it is a part."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from polydit.core.datasets.folder import ABOUT
from polydit.core.datasets.splits import SPLITS
from polydit.core.errors import InputError
from polydit.vstain.data.pair_file import PairFile, PairSplit

NAME = "manifest.csv"
COLUMNS = ("id", "he", "ihc", "mask", "stain", "split", "mpp")
_NEEDED = ("he", "ihc")


def matches(path: Path) -> bool:
    """Whether the path is a CSV file, or a folder with a manifest or with an unfinished data set of ours."""
    return path.suffix.lower() == ".csv" or (path / NAME).is_file() or _is_unfinished(path)


def pairs(path: Path) -> Iterator[PairFile]:
    """The rows in their order; paths are relative to the CSV file.

    Raises:
        InputError: A row is wrong; it is named, with its column.
    """
    table = path / NAME if path.is_dir() else path
    if path.is_dir() and _is_unfinished(path):
        hint = "Run the command that made it again: it goes on where it was interrupted"
        raise InputError("the data set is not finished", where=str(path), hint=hint)
    seen: dict[str, int] = {}
    for row, cells in _rows(table):
        pair = _pair(table, row, cells)
        if pair.id in seen:
            raise InputError(f"the id {pair.id!r} is that of row {seen[pair.id]} too", where=pair.source)
        seen[pair.id] = row
        yield pair


def _is_unfinished(folder: Path) -> bool:
    try:
        about = json.loads((folder / ABOUT).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("complete") is False


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows by column, numbered from 1 without the head; the names of unknown columns are left out."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as handle:
            lines = csv.reader(handle, strict=True)
            head = [name.strip().lower() for name in next(lines, [])]
            _check_head(head, table)
            for row, cells in enumerate((line for line in lines if line), 1):
                if len(cells) != len(head):
                    problem = f"{len(cells)} cells in a table of {len(head)} columns"
                    raise InputError(problem, where=f"{table}, row {row}")
                named = zip(head, cells, strict=True)
                yield row, {name: cell.strip() for name, cell in named if name in COLUMNS}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"it cannot be read as CSV: {error}", where=str(table)) from error


def _check_head(head: list[str], table: Path) -> None:
    missing = [name for name in _NEEDED if name not in head]
    twice = [name for name in COLUMNS if head.count(name) > 1]
    if missing or twice:
        problem = f"there is no column {missing[0]!r}" if missing else f"two columns are named {twice[0]!r}"
        raise InputError(problem, where=f"{table}, first line", expected=", ".join(COLUMNS))


def _pair(table: Path, row: int, cells: dict[str, str]) -> PairFile:
    where = f"{table}, row {row}"
    for name in _NEEDED:
        if not cells[name]:
            raise InputError("the path is empty", where=f"{where}, column {name}")
    split = cells.get("split", "").lower()
    if split not in ("", *SPLITS):
        raise InputError(
            f"{split!r} is no split", where=f"{where}, column split", expected="train, val, test or nothing"
        )
    folder, mask = table.parent, cells.get("mask", "")
    return PairFile(
        id=cells.get("id", "") or str(row),
        stain=cells.get("stain", "").lower(),
        split=cast("PairSplit", split),
        he=folder / cells["he"],
        ihc=folder / cells["ihc"],
        mask=folder / mask if mask else None,
        mpp=_mpp(cells.get("mpp", ""), where),
        source=where,
    )


def _mpp(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        mpp = float(text)
    except ValueError:
        mpp = 0.0
    if not 0.01 <= mpp <= 100:
        expected = "microns per pixel between 0.01 and 100, or nothing"
        raise InputError(f"{text!r} is out of range", where=f"{where}, column mpp", expected=expected)
    return mpp
