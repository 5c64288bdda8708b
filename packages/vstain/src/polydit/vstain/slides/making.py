"""Procedural slides of any size as pyramids: H&E, the true stain and the true mask, streamed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from polydit.core.errors import InputError
from polydit.core.jobs.files import naming_write_errors
from polydit.vstain.data.tissue import MPP, render
from polydit.vstain.slides.settings import BAND, SLIDE_ENDINGS, SlideRecipe
from polydit.vstain.slides.writing import RawRaster, build_levels, write_pyramid

_Part = Literal["he", "ihc", "mask"]
_PARTS: tuple[tuple[_Part, int], ...] = (("he", 3), ("ihc", 3), ("mask", 1))


def make_slide(
    out: Path, recipe: SlideRecipe, *, overwrite: bool = False, on_band: Callable[[], object] = lambda: None
) -> list[Path]:
    """Writes `he`, `ihc` and `mask` pyramids into a folder; memory grows with the slide's width alone.

    Args:
        out: The folder; made if it is missing.
        recipe: What to make.
        overwrite: Replace files of these names.
        on_band: Called after each row of pieces.

    Returns:
        The three files.

    Raises:
        InputError: The folder holds such files already, or is a file.
        DiskFullError: There is no room.
    """
    ending = SLIDE_ENDINGS[recipe.format]
    paths = [out / f"he{ending}", out / f"ihc{ending}", out / "mask.tif"]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError("is a file, not a folder", where=f"--out {out}") from None
    if not overwrite and (there := [path for path in paths if path.exists()]):
        raise InputError(f"holds {there[0].name} already", where=f"--out {out}", hint="Add --overwrite.")
    scratch = out / ".making"
    with naming_write_errors(out):
        try:
            scratch.mkdir(exist_ok=True)
            rasters = _render(recipe, scratch, on_band)
            for path, (part, _), raster in zip(paths, _PARTS, rasters, strict=True):
                levels = build_levels(raster, scratch / f"{part}-levels", binary=part == "mask")
                about = f"procedural {part}; stain {recipe.stain}; seed {recipe.seed}"
                format = recipe.format if part != "mask" else "tiff"
                write_pyramid(path, levels, mpp=MPP, format=format, description=about)
        finally:
            with suppress(OSError):
                shutil.rmtree(scratch)
    return paths


def _render(recipe: SlideRecipe, scratch: Path, on_band: Callable[[], object]) -> list[RawRaster]:
    size = recipe.size
    rasters = [RawRaster(scratch / f"{part}.raw", size, size, channels) for part, channels in _PARTS]
    handles = [raster.path.open("wb") for raster in rasters]
    try:
        for y in range(0, size, BAND):
            rows = min(BAND, size - y)
            bands = [np.empty((rows, size, channels), np.uint8) for _, channels in _PARTS]
            for x in range(0, size, BAND):
                _render_piece(recipe, x, y, [band[:, x : x + BAND] for band in bands])
            for handle, band in zip(handles, bands, strict=True):
                handle.write(band.data)
            on_band()
    finally:
        for handle in handles:
            handle.close()
    return rasters


def _render_piece(recipe: SlideRecipe, x: int, y: int, parts: list[UInt8[np.ndarray, "_ _ _"]]) -> None:
    rows, columns = parts[0].shape[:2]
    piece = render(recipe.seed, x, y, columns, rows, recipe.stain, coverage=recipe.coverage)
    he, ihc, mask = parts
    he[:], ihc[:] = piece.he, piece.ihc
    mask[..., 0] = piece.mask.astype(np.uint8) * np.uint8(255)
