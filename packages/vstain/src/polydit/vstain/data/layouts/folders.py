"""Two folders of the same names: `HE/` and `IHC/` (and `mask/`), or `A/` and `B/`, also below train, val and test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

from polydit.core.datasets.splits import SPLITS
from polydit.vstain.data.layouts.listing import matched
from polydit.vstain.data.pair_file import PairFile, PairSplit

_NAMES = (("HE", "IHC", "mask"), ("he", "ihc", "mask"), ("A", "B", "mask"))


def matches(path: Path) -> bool:
    """Whether two such folders are there."""
    return bool(_folders(path))


def _folders(path: Path) -> list[tuple[str, Path, Path, Path]]:
    """The split ("" = none) and the folders of H&E, stain and masks."""
    found: list[tuple[str, Path, Path, Path]] = []
    own = path.absolute().name
    for split, folder in ((own if own in SPLITS else "", path), *((split, path / split) for split in SPLITS)):
        parts = next((names for names in _NAMES if all((folder / name).is_dir() for name in names[:2])), None)
        if parts is not None:
            he, ihc, mask = (folder / name for name in parts)
            found.append((split, he, ihc, mask))
    return found


def pairs(path: Path) -> Iterator[PairFile]:
    """The pairs; nothing here says which stain it is."""
    for split, he, ihc, mask in _folders(path):
        for match in matched(he, ihc, mask):
            yield PairFile(
                id=f"{split}/{match.stem}" if split else match.stem,
                stain="",
                split=cast("PairSplit", split),
                he=match.he,
                ihc=match.ihc,
                mask=match.mask,
            )
