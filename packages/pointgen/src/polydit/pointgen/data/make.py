"""`pointgen data make`: parametric shapes as a PC15k data set that anyone can make again without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from polydit.core.errors import PolyditError
from polydit.core.jobs.crew import Crew, Died
from polydit.pointgen.data.folder import dataset_folder
from polydit.pointgen.data.pc15k import count_shapes, shape_path, shapes_there, write_shape
from polydit.pointgen.data.recipe import CATEGORIES, NUM_POINTS, SPLITS, MakeRecipe, Split, split_counts
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
    percent: tuple[int, int, int] = (85, 10, 5),
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
    with dataset_folder(Path(out), recipe, overwrite=overwrite) as folder:
        there = shapes_there(folder.path, num_points)
        missing = [shape for shape in _shapes(recipe) if shape.path(folder.path) not in there]
        on_begin(num * len(recipe.categories) - len(missing))
        if folder.is_complete and not missing:
            return dict(folder.about)
        for number in _write_all(missing, folder.path, recipe, workers):
            on_shapes(number)
        return folder.finish(shapes=count_shapes(folder.path) if num else {})


def _shapes(recipe: MakeRecipe) -> Iterator[_Shape]:
    for category in recipe.categories:
        counts = split_counts(recipe.num, recipe.percent)
        order = [split for split in SPLITS for _ in range(counts[split])]
        for number, split in enumerate(order):
            yield _Shape(category, split, number)


def _write_all(shapes: list[_Shape], out: Path, recipe: MakeRecipe, workers: int) -> Iterator[int]:
    """Writes shapes here or in worker processes; gives their numbers as they reach the disk."""
    chunks = [shapes[start : start + _CHUNK] for start in range(0, len(shapes), _CHUNK)]
    if workers == 1:
        for shape in shapes:
            yield _write([shape], out=out, recipe=recipe)
        return
    with Crew(partial(_writer, out, recipe), min(workers, len(chunks)) or 1) as crew:
        for done in crew.map(chunks):
            for _, result in done:
                if isinstance(result, Died):
                    raise PolyditError(result.reason, hint="Run the same command again to go on.")
                yield result


@contextmanager
def _writer(out: Path, recipe: MakeRecipe) -> Iterator[Callable[[list[_Shape]], int]]:
    yield partial(_write, out=out, recipe=recipe)


def _write(shapes: list[_Shape], *, out: Path, recipe: MakeRecipe) -> int:
    for shape in shapes:
        points = shape_points(shape.category, recipe.seed, shape.number, recipe.num_points)
        write_shape(shape.path(out), points)
    return len(shapes)
