"""Two images in one file, H&E on the left (pix2pix's "aligned"): in a folder, or in train, val and test below it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import cast

from polydit.core.datasets.splits import SPLITS
from polydit.core.errors import InputError
from polydit.vstain.data.images import image_size
from polydit.vstain.data.layouts.bci import stain_of
from polydit.vstain.data.layouts.listing import images
from polydit.vstain.data.pair_file import PairFile, PairSplit

_LOOKED_AT = 8  # some of the first may be damaged


def matches(path: Path) -> bool:
    """Whether one of the first images is twice as wide as high."""
    return any(_is_double(image) for _, _, image in islice(_files(path), _LOOKED_AT))


def _is_double(path: Path) -> bool:
    try:
        width, height = image_size(path)
    except InputError:
        return False
    return width == 2 * height


def _files(path: Path) -> Iterator[tuple[str, str, Path]]:
    """The split ("" = none), the stem and the path of each image."""
    own = path.absolute().name
    for split, folder in ((own if own in SPLITS else "", path), *((split, path / split) for split in SPLITS)):
        for stem, image in images(folder).items():
            yield split, stem, image


def pairs(path: Path) -> Iterator[PairFile]:
    """The pairs; the stain is known of BCI's names only."""
    for split, stem, image in _files(path):
        yield PairFile(
            id=f"{split}/{stem}" if split else stem,
            stain=stain_of(stem),
            split=cast("PairSplit", split),
            he=image,
            ihc=image,
        )
