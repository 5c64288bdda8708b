"""`vstain data import`: pairs of any layout, cut to tiles, as a data set of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from polydit.core.datasets.folder import dataset_folder
from polydit.core.datasets.splits import Split, split_order
from polydit.core.errors import InputError
from polydit.core.jobs.crew import Died, spread
from polydit.core.jobs.files import safe_name
from polydit.core.jobs.seeds import item_uniform
from polydit.vstain.colour import coarse_mask
from polydit.vstain.data.find import find_pairs
from polydit.vstain.data.folder import TILES, Tile, finish
from polydit.vstain.data.images import resized, resized_mask
from polydit.vstain.data.pair_file import PairFile, Rejected
from polydit.vstain.data.recipe import ImportRecipe
from polydit.vstain.pairs import StainPair


class Imported(NamedTuple):
    """What became of the source's pairs.

    Args:
        kept: Pairs whose tiles an earlier call wrote.
        written: Pairs whose tiles were written now.
        tiles: Tiles of both.
        left_out: Pairs that cannot be used, and why.
    """

    kept: int
    written: int
    tiles: int
    left_out: list[Rejected]


class Planned(NamedTuple):
    """A pair of the source and what becomes of it."""

    pair: PairFile
    name: str
    split: Split
    mpp: float | None  # of the tiles
    scale: float  # pixels of a tile over those of the source

    def tiles(self, width: int, height: int, side: int) -> list[tuple[Tile, int, int]]:
        """Its tiles with their left and upper edges, once it is resampled to `width` x `height`.

        They lie edge to edge in the middle of the image; what is left at its rims is not used.

        Raises:
            InputError: The image is smaller than a tile.
        """
        columns, rows = width // side, height // side
        if not columns or not rows:
            problem = f"{width} x {height} pixels are less than a tile of {side} x {side}"
            raise InputError(problem, where=str(self.pair.he))
        left, top = (width - columns * side) // 2, (height - rows * side) // 2
        places = [(row, column) for row in range(rows) for column in range(columns)]
        return [
            (
                Tile(f"{self.name}-{row}-{column}", self.pair.stain, self.split, self.mpp),
                left + column * side,
                top + row * side,
            )
            for row, column in places
        ]

    def size(self) -> tuple[int, int]:
        """Width and height of its images once they are resampled.

        Raises:
            InputError: The image cannot be read.
        """
        width, height = self.pair.size()
        return round(width * self.scale), round(height * self.scale)


def import_dataset(
    out: Path,
    recipe: ImportRecipe,
    *,
    plan: list[Planned] | None = None,
    workers: int = 1,
    overwrite: bool = False,
    on_begin: Callable[[int], object] = lambda kept: None,
    on_pair: Callable[[], object] = lambda: None,
) -> Imported:
    """Writes the tiles of every good pair that are still missing; a bad pair is left out.

    After a kill the same call goes on. Where a pair has no mask, it is derived from its stain (`coarse_mask`).

    Args:
        out: Folder of the data set.
        recipe: What to read, and how to cut it.
        plan: What `plan_import` made of the recipe; None = it is made here.
        workers: Processes; the result does not depend on it.
        overwrite: Replace what an earlier call with another recipe made.
        on_begin: Called once with how many pairs an earlier call finished.
        on_pair: Called after each other pair, good or bad.

    Raises:
        InputError: The source has no pairs, its stain or resolution is not known, no pair is good, `out` lies in the
            source or holds something else (see `dataset_folder`).
        PolyditError: Writing failed.
    """
    source = Path(recipe.source).resolve()
    if source.is_dir() and Path(out).resolve().is_relative_to(source):
        raise InputError(
            "it lies in the folder that is imported", where=f"--out {out}", hint="Choose another --out"
        )
    planned = plan_import(recipe) if plan is None else plan
    with dataset_folder(Path(out), asdict(recipe), TILES, overwrite=overwrite) as folder:
        made = {entry.name: _finished(entry, folder.path, recipe.tile) for entry in planned}
        missing = [entry for entry in planned if not made[entry.name]]
        on_begin(len(planned) - len(missing))
        left_out: list[Rejected] = []
        for entry, result in spread(partial(_write, out=folder.path, side=recipe.tile), missing, workers):
            if isinstance(result, Died):
                left_out.append(Rejected(str(entry.pair.he), result.reason))
            elif isinstance(result, Rejected):
                left_out.append(result)
            else:
                made[entry.name] = result
            on_pair()
        left_out.sort()
        if len(left_out) == len(planned):
            raise InputError(
                f"no pair can be used, the first: {left_out[0].reason}", where=left_out[0].source
            )
        tiles = [tile for entry in planned for tile in made[entry.name]]
        finish(folder, tiles, left_out=[entry._asdict() for entry in left_out])
    kept = len(planned) - len(missing)
    return Imported(kept, len(missing) - len(left_out), len(tiles), left_out)


# --- what goes where ------------------------------------------------------------------------------------


def plan_import(recipe: ImportRecipe) -> list[Planned]:
    """What becomes of each pair: all its tiles go into one split, its own where it has one.

    Raises:
        InputError: The source has no pairs, or does not say their stain, or their resolution though it is needed.
    """
    found = find_pairs(
        Path(recipe.source), stain=recipe.stain, layout=recipe.layout, channels=recipe.channels
    )
    unnamed = next((pair for pair in found if not pair.stain), None)
    if unnamed is not None:
        where = unnamed.source or str(unnamed.ihc)
        raise InputError("nothing says which stain this is", where=where, hint="Say it: --stain her2")
    splits = _shared_out(found, recipe)
    return [
        Planned(pair, name, splits[pair.id], *_resolution(pair, recipe))
        for pair, name in zip(found, _names(found), strict=True)
    ]


def _shared_out(found: list[PairFile], recipe: ImportRecipe) -> dict[str, Split]:
    """Each pair's own split; those that have none get the shares of the recipe, in an order that the names decide."""
    open_ones = [pair.id for pair in found if not pair.split]
    mixed = sorted(open_ones, key=lambda name: item_uniform(recipe.seed, name))
    splits = dict(zip(mixed, split_order(len(mixed), recipe.percent), strict=True))
    return splits | {pair.id: pair.split for pair in found if pair.split}


def _names(found: list[PairFile]) -> list[str]:
    """Harmless file names, each once."""
    taken: set[str] = set()
    names: list[str] = []
    for pair in found:
        name = safe_name(pair.id.replace("/", "-"))
        if name in taken:
            name = safe_name(f"{pair.id}/")  # a slash calls for the hash of the whole id
        taken.add(name)
        names.append(name)
    return names


def _resolution(pair: PairFile, recipe: ImportRecipe) -> tuple[float | None, float]:
    """Microns per pixel of the tiles, and their pixels over those of the source."""
    there = pair.mpp or recipe.source_mpp
    if recipe.mpp is None:
        return there, 1.0
    if there is None:
        raise InputError(
            "nothing says how many microns a pixel is, so it cannot be resampled",
            where=pair.source or str(pair.he),
            hint="Say it: --source-mpp 0.25",
        )
    return recipe.mpp, there / recipe.mpp


def _finished(entry: Planned, out: Path, side: int) -> list[Tile]:
    """Its tiles if all of them are there, else none."""
    try:
        tiles = [tile for tile, _, _ in entry.tiles(*entry.size(), side)]
    except InputError:
        return []  # what is wrong comes to light when it is read
    return tiles if all(tile.is_there(out) for tile in tiles) else []


# --- writing --------------------------------------------------------------------------------------------


def _write(entry: Planned, *, out: Path, side: int) -> list[Tile] | Rejected:
    try:
        pair = _prepared(entry)
        tiles = entry.tiles(pair.he.shape[1], pair.he.shape[0], side)
    except InputError as error:
        return Rejected.of(error, str(entry.pair.he))
    for tile, left, top in tiles:
        tile.write(out, _cut(pair, left, top, side))
    return [tile for tile, _, _ in tiles]


def _prepared(entry: Planned) -> StainPair:
    """The pair at the resolution of the tiles, with a mask."""
    pair = entry.pair.read()
    he, ihc, mask = pair.he, pair.ihc, pair.mask
    if entry.scale != 1.0:
        size = entry.size()
        if min(size) < 1:
            raise InputError("not a pixel is left at this resolution", where=str(entry.pair.he))
        he, ihc = resized(he, *size), resized(ihc, *size)
        mask = None if mask is None else resized_mask(mask, *size)
    if mask is None:
        mask = coarse_mask(np.ascontiguousarray(ihc))
    return StainPair(id=pair.id, he=he, ihc=ihc, mask=mask, stain=pair.stain, mpp=entry.mpp)


def _cut(pair: StainPair, left: int, top: int, side: int) -> StainPair:
    assert pair.mask is not None
    there = slice(top, top + side), slice(left, left + side)
    return StainPair(
        id=pair.id,
        he=pair.he[there],
        ihc=pair.ihc[there],
        mask=pair.mask[there],
        stain=pair.stain,
        mpp=pair.mpp,
    )
