"""A data set of ours: where its tiles lie, and the manifest that lists them."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from polydit.core.datasets.folder import DatasetFolder, DatasetKind
from polydit.core.datasets.splits import SPLITS, Split
from polydit.core.jobs.files import atomic_file
from polydit.vstain.data.images import png_bytes
from polydit.vstain.data.layouts.manifest import COLUMNS, NAME
from polydit.vstain.pairs import StainPair

PARTS = ("HE", "IHC", "mask")
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"


class Tile(NamedTuple):
    """A tile's place in the data set."""

    id: str
    stain: str
    split: Split
    mpp: float | None

    @property
    def files(self) -> tuple[str, str, str]:
        """Its H&E, its stain and its mask, relative to the data set."""
        he, ihc, mask = (f"{self.split}/{part}/{self.id}.png" for part in PARTS)
        return he, ihc, mask

    def is_there(self, root: Path) -> bool:
        """Whether all its files are whole."""
        return all(_is_whole(root / file) for file in self.files)

    def write(self, root: Path, pair: StainPair) -> None:
        """Writes its files, each whole or not at all.

        Nothing is forced to the disk here: `is_there` finds what a power cut has cost.

        Raises:
            OSError: The system refuses.
        """
        assert pair.mask is not None
        for file, image in zip(self.files, (pair.he, pair.ihc, pair.mask), strict=True):
            path = root / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path, sync=False) as handle:
                handle.write(png_bytes(image))


def _is_whole(path: Path) -> bool:
    """Whether a PNG begins and ends as one; ours are renamed when written, so only lost blocks could be missing."""
    try:
        with path.open("rb") as handle:
            start = handle.read(len(_PNG_START))
            handle.seek(-len(_PNG_END), os.SEEK_END)
            return start == _PNG_START and handle.read() == _PNG_END
    except OSError:
        return False


TILES = DatasetKind(
    noun="a data set",
    is_there=lambda folder: any((folder / name).exists() for name in (NAME, *SPLITS)),
    files=(NAME, *(f"{split}/{part}/*.png" for split in SPLITS for part in PARTS)),
    folders=(*(f"{split}/{part}" for split in SPLITS for part in PARTS), *SPLITS),
    packages=("polydit-vstain", "numpy", "pillow"),
)


def finish(folder: DatasetFolder, tiles: Sequence[Tile], **content: Any) -> dict[str, Any]:
    """Writes the manifest, and says that everything is there once it is on the disk."""
    counts: dict[str, dict[str, int]] = {}
    for (stain, split), count in sorted(Counter((tile.stain, tile.split) for tile in tiles).items()):
        counts.setdefault(stain, {})[split] = count
    return folder.finish({NAME: _manifest(tiles)}, tiles=counts, **content)


def _manifest(tiles: Iterable[Tile]) -> bytes:
    table = StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    for tile in tiles:
        mpp = "" if tile.mpp is None else f"{tile.mpp:g}"
        rows.writerow((tile.id, *tile.files, tile.stain, tile.split, mpp))
    return table.getvalue().encode()
