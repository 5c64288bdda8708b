"""`pointgen data make`: parametric shapes as a PC15k data set that anyone can make again without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from polydit.core.datasets.folder import dataset_folder
from polydit.core.datasets.splits import Percent, Split, split_order
from polydit.core.jobs.crew import spread_chunks
from polydit.pointgen.data.pc15k import SHAPES, count_shapes, shape_path, shapes_there, write_shape
from polydit.pointgen.data.recipe import CATEGORIES, NUM_POINTS, PERCENT, MakeRecipe
from polydit.pointgen.data.shapes import shape_points

_CHUNK = 16  # shapes that a worker process gets at once


class _Shape(NamedTuple):
    category: str
    split: Split
    number: int

    def path(self, out: Path) -> Path:
        return shape_path(out, self.category, self.split, f"{self.category}-{self.number:06d}")


def make_dataset(
    out: Path,
    categories: Sequence[str] = CATEGORIES,
    num: int = 1000,
    seed: int = 0,
    workers: int = 1,
    *,
    num_points: int = NUM_POINTS,
    percent: Percent = PERCENT,
    overwrite: bool = False,
    on_begin: Callable[[int], object] = lambda kept: None,
    on_shapes: Callable[[int], object] = lambda number: None,
) -> dict[str, Any]:
    """Writes the shapes that are still missing; after a kill the same call goes on and gives the same bytes.

    Args:
        out: Folder of the data set; made if it is missing.
        categories: Some of `CATEGORIES`.
        num: Shapes of each.
        seed: Of all shapes.
        workers: Processes; the result does not depend on it.
        num_points: Points of each shape; PC15k has 15,000.
        percent: Shares of train, val and test.
        overwrite: Replace what an earlier call with another recipe made.
        on_begin: Called once with the number of shapes that an earlier call wrote.
        on_shapes: Called with the number of shapes that have just reached the disk.

    Returns:
        What data.json holds: the recipe, versions, and the numbers of shapes by category and split.

    Raises:
        InputError: A value is out of range, the folder cannot be written, or holds something else (see
            `dataset_folder`).
        PolyditError: Writing failed.
    """
    recipe = MakeRecipe(
        categories=tuple(categories), num=num, num_points=num_points, percent=percent, seed=seed
    )
    with dataset_folder(Path(out), asdict(recipe), SHAPES, overwrite=overwrite) as folder:
        there = shapes_there(folder.path, num_points)
        missing = [shape for shape in _shapes(recipe) if shape.path(folder.path) not in there]
        on_begin(num * len(recipe.categories) - len(missing))
        if folder.is_complete and not missing:
            return dict(folder.about)
        write = partial(_write, out=folder.path, recipe=recipe)
        for number in spread_chunks(write, missing, workers, size=_CHUNK):
            on_shapes(number)
        return folder.finish(shapes=count_shapes(folder.path) if num else {})


def _shapes(recipe: MakeRecipe) -> Iterator[_Shape]:
    for category in recipe.categories:
        for number, split in enumerate(split_order(recipe.num, recipe.percent)):
            yield _Shape(category, split, number)


def _write(shapes: list[_Shape], *, out: Path, recipe: MakeRecipe) -> int:
    for shape in shapes:
        points = shape_points(shape.category, recipe.seed, shape.number, recipe.num_points)
        write_shape(shape.path(out), points)
    return len(shapes)
