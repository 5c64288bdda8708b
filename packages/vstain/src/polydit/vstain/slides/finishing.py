"""From a slide whose tiles are done to its files: pyramids, objects, figures, thumbnails."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from polydit.vstain.slides.figures import slide_amounts
from polydit.vstain.slides.objects import find_objects, write_geojson
from polydit.vstain.slides.settings import SLIDE_ENDINGS, PyramidFormat
from polydit.vstain.slides.staining import StainedSlide
from polydit.vstain.slides.writing import build_levels, thumbnail, write_pyramid


def slide_files(
    stained: StainedSlide,
    folder: Path,
    *,
    scale: float,
    format: PyramidFormat,
    about: dict[str, Any],
) -> tuple[dict[str, bytes | Path], dict[str, Any]]:
    """Writes a slide's large files into a folder; memory does not grow with the slide.

    Args:
        stained: The slide.
        folder: Where they are made.
        scale: Pixels of the input per pixel of the stain.
        format: Of the pyramid.
        about: What the files say of themselves, beside the figures.

    Returns:
        The files by the ending of their names, and the figures.

    Raises:
        OSError: The disk is full or refuses.
    """
    plan, texts = stained.plan, {name: str(value) for name, value in about.items() if value is not None}
    description = "; ".join(f"{name} {text}" for name, text in texts.items())
    levels = build_levels(stained.stain, folder / "levels")
    image = folder / f"stain{SLIDE_ENDINGS[format]}"
    write_pyramid(image, levels, mpp=plan.mpp, format=format, description=description)
    small = thumbnail(levels)
    files: dict[str, bytes | Path] = {
        SLIDE_ENDINGS[format]: image,
        ".thumbnail.png": png(small, texts),
        ".he.thumbnail.png": png(_fitted(stained.seen.image, small.shape[1], small.shape[0]), texts),
    }
    figures = {**about, **_counts(stained), **slide_amounts(stained).to_json(masked=plan.mask)}
    if stained.mask is not None:
        cells = build_levels(stained.mask, folder / "mask-levels", binary=True)
        files[".mask.tif"] = folder / "mask.tif"
        write_pyramid(folder / "mask.tif", cells, mpp=plan.mpp, format="tiff", description=description)
        objects = find_objects(stained.mask)
        files[".geojson"] = folder / "objects.geojson"
        write_geojson(
            folder / "objects.geojson", stained.mask, objects, scale=scale, name=plan.stain, mpp=plan.mpp
        )
        figures["positive_objects"] = len(objects)
    files[".json"] = figures_json(figures)
    return files, figures


def _counts(stained: StainedSlide) -> dict[str, Any]:
    grid, run = stained.plan.grid, int(stained.wanted.sum())
    note = {} if stained.ground.tissue.any() else {"note": "no tissue was found"}
    return {
        **note,
        "width": grid.width,
        "height": grid.height,
        "tiles_run": run,
        "tiles_skipped": len(grid) - run,
        "tissue_percent": 100 * stained.ground.share,
        "white": list(stained.ground.white),
    }


def figures_json(figures: dict[str, Any]) -> bytes:
    """Figures as a file; with the stain vectors that turn its colours into amounts of stain."""
    from skimage.color import rgb_from_hed

    vectors = {"haematoxylin": rgb_from_hed[0].tolist(), "dab": rgb_from_hed[2].tolist()}
    return (json.dumps({**figures, "stain_vectors": vectors}, indent=2) + "\n").encode()


def png(pixels: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w"], texts: dict[str, str]) -> bytes:
    """A PNG that says what it is."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info, handle = PngInfo(), BytesIO()
    for name, text in texts.items():
        info.add_itxt(name, text)
    Image.fromarray(pixels).save(
        handle, "PNG", pnginfo=info, compress_level=3
    )  # 6: 3 times as long, 4 % less
    return handle.getvalue()


def _fitted(image: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> UInt8[np.ndarray, "r c 3"]:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
