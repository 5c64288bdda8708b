"""Clouds from any file or folder that people keep shapes in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from polydit.core.datasets.splits import SPLITS
from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_seed
from polydit.pointgen.cloud import Cloud, Rejected, fault
from polydit.pointgen.data.arrays import read_npy
from polydit.pointgen.data.geometry import FORMATS, Geometry, pick, read_geometry
from polydit.pointgen.data.headers import check_size
from polydit.pointgen.data.pc15k import SplitFolder, category_name, find_splits, part_of

NUM_POINTS = 2048  # drawn on a mesh where no number is asked for, as the field measures


def read_clouds(
    path: Path,
    *,
    num_points: int | None = None,
    category: str | None = None,
    split: str | None = None,
    seed: int = 0,
) -> Iterator[Cloud | Rejected]:
    """Clouds of a file, of all files below a folder in the order of their names, or of a PC15k data set.

    What cannot become a cloud is yielded as `Rejected` and the rest goes on; files of unknown formats in a folder are
    left out, and so are all but one of the formats in which the same shape is there.

    Of a PC15k shape the train split gives the first two thirds of the points (10,000), val and test the last third
    (5,000), as PointFlow has it; `num_points` of them are drawn in train, and the first ones are taken in val and test.

    Args:
        path: A file, a folder, a PC15k data set, a part of one, or `<data set>/val`: that split of all categories.
        num_points: So many of each: drawn evenly over the area of a mesh, or from the points without replacement; None
            = 2048 of a mesh, all points of a cloud.
        category: Only these; files that do not state theirs take it.
        split: "train", "val" or "test" of a PC15k data set; None = all three.
        seed: Of all draws; each shape has its own generator.

    Raises:
        InputError: The path does not exist, is one file that gives no cloud at all, or has no shapes of such a category
            or split.
    """
    path = Path(path)
    if num_points is not None and num_points < 1:
        raise InputError(f"{num_points} points are out of range", expected="at least 1")
    if split is not None and split not in SPLITS:
        raise InputError(f"there is no split {split!r}", expected=", ".join(SPLITS))
    wanted = None if category is None else category_name(category)
    if splits := find_splits(path):
        for folder in _chosen(splits, wanted, split, path):
            yield from _read_split(folder, num_points, seed)
    elif not path.exists():
        raise InputError("there is no such file or folder", where=str(path))
    elif split is not None:
        raise InputError(
            "it has no splits", where=str(path), expected="<category>/{train,val,test}/*.npy, as PC15k has it"
        )
    elif path.is_dir():
        yield from _read_folder(path, num_points, wanted, seed)
    else:
        yield from _read_file(path, path.stem, num_points, wanted, seed)


def data_files(folder: Path) -> list[Path]:
    """The files of shapes below a folder, sorted; each shape once, from the format that is first in `FORMATS`.

    Raises:
        InputError: There are none.
    """
    best: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*")):
        rank = FORMATS.index(path.suffix.lower()) if path.suffix.lower() in FORMATS else None
        if rank is None or not path.is_file():
            continue
        stem = path.with_suffix("")
        if stem not in best or rank < FORMATS.index(best[stem].suffix.lower()):
            best[stem] = path
    if not best:
        raise InputError("the folder has no files of shapes", where=str(folder), expected=" ".join(FORMATS))
    return list(best.values())


def rejected(source: str, error: InputError) -> Rejected:
    """The entry of what could not become a cloud, without its place, which `source` says."""
    reason = error.problem + (f"; expected {error.expected}" if error.expected else "")
    return Rejected(source, reason)


def generator(seed: int, name: str) -> np.random.Generator:
    """The generator of one shape: the same wherever its folder lies."""
    return np.random.default_rng(item_seed(seed, name))


def _read_folder(
    folder: Path, num_points: int | None, category: str | None, seed: int
) -> Iterator[Cloud | Rejected]:
    for path in data_files(folder):
        name = path.relative_to(folder).with_suffix("").as_posix()
        try:
            yield from _read_file(path, name, num_points, category, seed)
        except InputError as error:
            yield rejected(str(path), error)


def _read_file(
    path: Path, name: str, num_points: int | None, category: str | None, seed: int
) -> Iterator[Cloud | Rejected]:
    """The clouds of a file; a row that is none is rejected, a file that is one shape and none raises."""
    for shape in read_geometry(path):
        where = str(path) if shape.row is None else f"{path}, row {shape.row}"
        stated = shape.remarks.get("category", "")
        if category is not None and stated not in ("", category):
            continue
        try:
            yield _cloud(shape, name, where, num_points, category or stated, seed)
        except InputError as error:
            if shape.row is None:
                raise InputError(error.problem, where=where, expected=error.expected) from error
            yield rejected(where, error)


def _cloud(shape: Geometry, name: str, where: str, num_points: int | None, category: str, seed: int) -> Cloud:
    if shape.row is not None:
        name = f"{name}-{shape.row:06d}"
    if num_points is None and shape.faces is not None:
        num_points = NUM_POINTS
    points = shape.points(num_points, generator(seed, name.rpartition("/")[2]))
    return Cloud(id=name, points=points, category=category, source=where)


# --- PC15k ----------------------------------------------------------------------------------------------


def _chosen(
    splits: list[SplitFolder], category: str | None, split: str | None, path: Path
) -> list[SplitFolder]:
    """Those asked for, a category's splits one after another."""
    found = [
        entry
        for entry in splits
        if (category is None or entry.category == category) and (split is None or entry.split == split)
    ]
    if not found:
        asked = " ".join(word for word in (category, split) if word)
        there = ", ".join(f"{entry.category} {entry.split}" for entry in splits)
        raise InputError(f"it has no shapes of {asked}", where=str(path), expected=f"one of {there}")
    return found


def _read_split(folder: SplitFolder, num_points: int | None, seed: int) -> Iterator[Cloud | Rejected]:
    for path in folder.files():
        try:
            yield _read_shape(path, folder, num_points, seed)
        except InputError as error:
            yield rejected(str(path), error)


def _read_shape(path: Path, folder: SplitFolder, num_points: int | None, seed: int) -> Cloud:
    check_size(path)
    array = read_npy(path)
    if array.ndim != 2:
        raise InputError(f"an array of shape {array.shape} is no cloud", expected="(points, 3)")
    part = np.asarray(part_of(array, folder.split))
    if reason := fault(part):
        raise InputError(reason)
    points = part.astype(np.float32)
    if folder.split == "train" or num_points is None or num_points > len(points):
        points = pick(points, num_points, generator(seed, path.stem))
    else:
        points = points[:num_points]
    return Cloud(id=path.stem, points=points, category=folder.category, source=str(path))
