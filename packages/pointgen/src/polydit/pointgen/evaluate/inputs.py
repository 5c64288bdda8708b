"""What a user names on the command line, as two sets of clouds: a run folder or any folder, and a reference set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Final

from polydit.core.errors import InputError
from polydit.core.jobs.run_record import read_run
from polydit.pointgen.cloud import Cloud, Rejected

# An item of a run is stored in every format that was asked for; it is read once, from the most precise of them.
_BY_PRECISION: Final = (".npy", ".ply", ".glb", ".xyz", ".obj")


def read_samples(
    path: Path, *, num_points: int | None = None, category: str | None = None
) -> Iterator[Cloud | Rejected]:
    """Generated clouds: the items of a run folder with the categories of its manifest, or what a folder holds.

    Args:
        path: A run folder, or anything that `read_clouds` reads. An item that failed in the run is Rejected.
        num_points: As many of each cloud.
        category: Only these.

    Raises:
        InputError: There is nothing that could be read.
    """
    if (path / "run.json").is_file():
        return _read_run(path, num_points, category)
    from polydit.pointgen.data.readers import read_clouds

    return read_clouds(path, num_points=num_points, category=category)


def read_references(
    path: Path, *, num_points: int | None = None, category: str | None = None
) -> Iterator[Cloud | Rejected]:
    """The clouds that samples are measured against.

    Args:
        path: `<data set>/val`, a category's split, or any folder of clouds.
        num_points: As many of each cloud.
        category: Only these.

    Raises:
        InputError: It holds several splits of a data set, or nothing that could be read.
    """
    from polydit.pointgen.data.pc15k import find_splits
    from polydit.pointgen.data.readers import read_clouds

    splits = list(dict.fromkeys(split.split for split in find_splits(path)))
    if len(splits) > 1:
        raise InputError(
            f"the data set has the splits {', '.join(splits)}",
            where=str(path),
            expected="one of them as the reference",
            hint=f"Published figures are against: {path / 'val'}",
        )
    return read_clouds(path, num_points=num_points, category=category)


def _read_run(folder: Path, num_points: int | None, category: str | None) -> Iterator[Cloud | Rejected]:
    run = read_run(folder)
    for record in run.failed():
        if category in (None, record["measures"].get("category", category)):
            reason = record["error"]["message"] if "error" in record else "no reason recorded"
            yield Rejected(f"{folder}:{record['id']}", f"it failed in the run: {reason}")
    for (item_id, label), files in groupby(
        run.files(), key=lambda file: (file[0]["id"], str(file[0]["measures"].get("category") or ""))
    ):
        paths = [path for _, path in files if path.suffix in _BY_PRECISION]
        if category in (None, label):
            yield _read_item(item_id, label, paths, f"{folder}:{item_id}", num_points)


def _read_item(
    item_id: str, category: str, paths: Sequence[Path], where: str, num_points: int | None
) -> Cloud | Rejected:
    from polydit.pointgen.data.readers import read_clouds

    if not paths:
        return Rejected(where, "the run stored no cloud of it")
    try:
        entry = next(read_clouds(min(paths, key=_rank), num_points=num_points))
    except InputError as error:
        return Rejected(where, error.problem)
    if isinstance(entry, Rejected):
        return Rejected(where, entry.reason)
    return replace(entry, id=item_id, category=category or entry.category)


def _rank(path: Path) -> int:
    return _BY_PRECISION.index(path.suffix)
