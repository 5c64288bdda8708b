"""`pointgen data import`: any folder of meshes or clouds, written anew as a PC15k data set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from polydit.core.datasets.folder import dataset_folder
from polydit.core.datasets.splits import SPLITS, Split, split_order
from polydit.core.errors import InputError
from polydit.core.jobs.crew import Died, spread
from polydit.core.jobs.files import safe_name
from polydit.core.jobs.seeds import item_uniform
from polydit.pointgen.cloud import Rejected, fault
from polydit.pointgen.data.geometry import count_rows, read_geometry
from polydit.pointgen.data.pc15k import (
    SHAPES,
    category_name,
    count_shapes,
    shape_path,
    shapes_there,
    write_shape,
)
from polydit.pointgen.data.readers import data_files, generator, rejected
from polydit.pointgen.data.recipe import ImportRecipe


class Imported(NamedTuple):
    """What became of the source's shapes.

    Args:
        kept: Written by an earlier call.
        written: Written now.
        left_out: Those that are no shapes, and why.
    """

    kept: int
    written: int
    left_out: list[Rejected]


class Planned(NamedTuple):
    """One shape of the source, and where it goes."""

    source: Path
    row: int | None
    category: str
    split: Split
    name: str

    @property
    def where(self) -> str:
        """Its place in the source."""
        return str(self.source) if self.row is None else f"{self.source}, row {self.row}"

    def path(self, out: Path) -> Path:
        """Its file in the data set."""
        return shape_path(out, self.category, self.split, self.name)


class ImportPlan(NamedTuple):
    """Every shape of a source with its place, and the arrays that cannot be opened."""

    shapes: list[Planned]
    unopened: list[Rejected]


def unit_box(points: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
    """Centred on the bounding box, longest side 1 (LION's norm_box)."""
    wide = points.astype(np.float64)
    low, high = wide.min(0), wide.max(0)
    return np.asarray((wide - (low + high) / 2) / (high - low).max(), np.float32)


def import_dataset(
    out: Path,
    recipe: ImportRecipe,
    *,
    plan: ImportPlan | None = None,
    workers: int = 1,
    overwrite: bool = False,
    on_begin: Callable[[int], object] = lambda kept: None,
    on_shape: Callable[[], object] = lambda: None,
) -> Imported:
    """Writes every good shape that is still missing; a bad one fails alone. After a kill the same call goes on.

    Args:
        out: Folder of the data set.
        recipe: What to read, and how to write it.
        plan: What `plan_import` made of the recipe; None = it is made here.
        workers: Processes; the result does not depend on it.
        overwrite: Replace what an earlier call with another recipe made.
        on_begin: Called once with how many shapes an earlier call wrote.
        on_shape: Called after each other shape, good or bad.

    Raises:
        InputError: The source has no shapes, a category is missing, no shape is good, or `out` holds something else.
        PolyditError: Writing failed.
    """
    shapes, unopened = plan or plan_import(recipe)
    left_out = list(unopened)
    with dataset_folder(Path(out), asdict(recipe), SHAPES, overwrite=overwrite) as folder:
        there = shapes_there(folder.path, recipe.num_points)
        missing = [entry for entry in shapes if entry.path(folder.path) not in there]
        kept, bad = len(shapes) - len(missing), 0
        on_begin(kept)
        for entry, result in spread(partial(_write, out=folder.path, recipe=recipe), missing, workers):
            if isinstance(result, Died):
                result = Rejected(entry.where, result.reason)
            if result is not None:
                bad += 1
                left_out.append(result)
            on_shape()
        left_out.sort(key=lambda entry: entry.source)
        if bad == len(shapes):
            first = left_out[0]
            raise InputError(f"no shape can be written, the first: {first.reason}", where=first.source)
        listed = [{"source": entry.source, "reason": entry.reason} for entry in left_out]
        folder.finish(shapes=count_shapes(folder.path), left_out=listed)
    return Imported(kept, len(missing) - bad, left_out)


# --- what goes where ------------------------------------------------------------------------------------


def plan_import(recipe: ImportRecipe) -> ImportPlan:
    """What goes where.

    A file's category is `recipe.category`, or else the name of the first folder below the source. A file below a folder
    named train, val or test stays in that split; the others are shared out by the recipe.

    Raises:
        InputError: The source has no shapes, or a file has no category.
    """
    source = Path(recipe.source)
    if not source.exists():
        raise InputError("there is no such file or folder", where=str(source))
    files = [source] if source.is_file() else data_files(source)
    bad: list[Rejected] = []
    found: list[_Found] = []
    for path in files:
        try:
            rows = count_rows(path)
        except InputError as error:
            bad.append(rejected(str(path), error))
            continue
        numbers = [None] if rows is None else range(rows)
        found += [_find(path, row, source, recipe.category) for row in numbers]
    return ImportPlan(_unique(_share_out(found, recipe)), bad)


class _Found(NamedTuple):
    source: Path
    row: int | None
    category: str
    split: Split | None
    name: str


def _find(path: Path, row: int | None, source: Path, category: str) -> _Found:
    folders = list(path.relative_to(source).parts[:-1]) if path != source else []
    split = next((split for split in SPLITS if split in folders), None)
    folders = [name for name in folders if name not in SPLITS]
    if not category:
        if not folders:
            hint = "Say what these shapes are: --category NAME"
            raise InputError("it lies in no folder that names its category", where=str(path), hint=hint)
        category = category_name(folders.pop(0))
    stem = path.stem if row is None else f"{path.stem}-{row:06d}"
    return _Found(path, row, safe_name(category_name(category)), split, "/".join([*folders, stem]))


def _share_out(found: list[_Found], recipe: ImportRecipe) -> Iterator[Planned]:
    """Gives a split to those that have none: the shares of the recipe, in an order that the names decide."""
    open_ones: dict[str, list[_Found]] = defaultdict(list)
    for entry in found:
        if entry.split is None:
            open_ones[entry.category].append(entry)
    splits: dict[tuple[str, str], Split] = {}
    for category, entries in open_ones.items():
        mixed = sorted(entries, key=lambda entry: item_uniform(recipe.seed, entry.name))
        order = split_order(len(mixed), recipe.percent)
        splits |= {(category, entry.name): split for entry, split in zip(mixed, order, strict=True)}
    for entry in found:
        split = entry.split or splits[entry.category, entry.name]
        yield Planned(entry.source, entry.row, entry.category, split, entry.name)


def _unique(plan: Iterable[Planned]) -> list[Planned]:
    """Names that are harmless, and of which each is there once in its split."""
    taken: set[Path] = set()
    kept: list[Planned] = []
    for entry in plan:
        named = entry._replace(name=safe_name(entry.name))
        if named.path(Path()) in taken:
            named = entry._replace(name=safe_name(f"{entry.name}/{entry.where}"))
        taken.add(named.path(Path()))
        kept.append(named)
    return kept


# --- writing --------------------------------------------------------------------------------------------


def _write(entry: Planned, *, out: Path, recipe: ImportRecipe) -> Rejected | None:
    try:
        shape = next(read_geometry(entry.source, entry.row))
        rng = generator(recipe.seed, f"{entry.category}/{entry.split}/{entry.name}")
        points = shape.points(recipe.num_points, rng)
        if recipe.scaling == "unit-box":
            points = unit_box(points)
        if reason := fault(points):
            raise InputError(reason)
    except InputError as error:
        return rejected(entry.where, error)
    write_shape(entry.path(out), points)
    return None
