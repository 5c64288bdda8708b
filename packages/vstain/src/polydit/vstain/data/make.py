"""`vstain data make`: tiles of procedural slides as a data set that anyone can make again without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from polydit.core.datasets.folder import dataset_folder
from polydit.core.datasets.splits import Percent, split_order
from polydit.core.jobs.crew import spread_chunks
from polydit.core.jobs.seeds import item_seed
from polydit.vstain.data.folder import TILES, Tile, finish
from polydit.vstain.data.recipe import MPP, PERCENT, STAINS, TILE, MakeRecipe
from polydit.vstain.data.tissue import render
from polydit.vstain.pairs import StainPair

_CHUNK = 8  # tiles that a worker process gets at once
_EXTENT = 2**16  # pixels of a slide within which its tile lies

_Numbered = tuple[int, Tile]


def make_dataset(
    out: Path,
    num: int = 2000,
    stains: Sequence[str] = STAINS,
    seed: int = 0,
    workers: int = 1,
    *,
    percent: Percent = PERCENT,
    coverage: float = 0.9,
    overwrite: bool = False,
    on_begin: Callable[[int], object] = lambda kept: None,
    on_tiles: Callable[[int], object] = lambda number: None,
) -> dict[str, Any]:
    """Writes the tiles that are still missing; after a kill the same call goes on and gives the same bytes.

    Args:
        out: Folder of the data set; made if it is missing.
        num: Tiles, of all stains together.
        stains: Some of `STAINS`; tiles take turns.
        seed: Of all tiles.
        workers: Processes; the result does not depend on it.
        percent: Shares of train, val and test.
        coverage: Share of a slide that is tissue; the rest is glass.
        overwrite: Replace what an earlier call with another recipe made.
        on_begin: Called once with the number of tiles that an earlier call wrote.
        on_tiles: Called with the number of tiles that have just reached the disk.

    Returns:
        What data.json holds: the recipe, versions, and the numbers of tiles by stain and split.

    Raises:
        InputError: A value is out of range, the folder cannot be written, or holds something else (see
            `dataset_folder`).
        PolyditError: Writing failed.
    """
    recipe = MakeRecipe(num=num, stains=tuple(stains), percent=percent, seed=seed, coverage=coverage)
    tiles = list(enumerate(_tiles(recipe)))
    with dataset_folder(Path(out), asdict(recipe), TILES, overwrite=overwrite) as folder:
        missing = [(number, tile) for number, tile in tiles if not tile.is_there(folder.path)]
        on_begin(num - len(missing))
        write = partial(_write, out=folder.path, recipe=recipe)
        for count in spread_chunks(write, missing, workers, size=_CHUNK):
            on_tiles(count)
        return finish(folder, [tile for _, tile in tiles])


def make_tile(number: int, stain: str, *, seed: int = 0, coverage: float = 0.9) -> StainPair:
    """Tile `number` of the data sets of a seed: a place of its own on a slide of its own.

    Args:
        number: From 0.
        stain: One of `STAINS`.
        seed: Of all tiles.
        coverage: Share of the slide that is tissue.
    """
    name = f"tile {number}"
    x, y = (item_seed(seed, name, axis) % _EXTENT for axis in range(2))
    drawn = render(item_seed(seed, name), x, y, TILE, TILE, stain, coverage=coverage)
    return StainPair(
        id=_name(stain, number), he=drawn.he, ihc=drawn.ihc, mask=drawn.mask, stain=stain, mpp=MPP
    )


def _name(stain: str, number: int) -> str:
    return f"{stain}-{number:06d}"


def _tiles(recipe: MakeRecipe) -> Iterator[Tile]:
    for number, split in enumerate(split_order(recipe.num, recipe.percent)):
        stain = recipe.stains[number % len(recipe.stains)]
        yield Tile(_name(stain, number), stain, split, MPP)


def _write(tiles: list[_Numbered], *, out: Path, recipe: MakeRecipe) -> int:
    for number, tile in tiles:
        tile.write(out, make_tile(number, tile.stain, seed=recipe.seed, coverage=recipe.coverage))
    return len(tiles)
