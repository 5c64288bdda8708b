"""MIST (Li et al. 2023): `<STAIN>/TrainValAB/{trainA,trainB,valA,valB}/<name>`, A is H&E.

Its pairs are consecutive sections: alike, but not pixel for pixel. Folders named trainA and trainB alone are read too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from polydit.core.datasets.splits import SPLITS
from polydit.vstain.data.layouts.listing import matched
from polydit.vstain.data.pair_file import PairFile

_FOLDER = "TrainValAB"
_MPP = 0.4661  # all its images


def matches(path: Path) -> bool:
    """Whether there is a stain, a folder of stains, or folders of A and B."""
    return bool(_folders(path))


def _folders(path: Path) -> list[Path]:
    """Folders that hold trainA and its like."""
    if not path.is_dir():
        return []
    stains = sorted(child / _FOLDER for child in path.iterdir() if child.is_dir())
    return [folder for folder in (path, path / _FOLDER, *stains) if _holds_pairs(folder)]


def _holds_pairs(folder: Path) -> bool:
    return any((folder / f"{split}A").is_dir() and (folder / f"{split}B").is_dir() for split in SPLITS)


def pairs(path: Path) -> Iterator[PairFile]:
    """The pairs of all stains."""
    for folder in _folders(path):
        known = folder.absolute().name == _FOLDER
        stain = folder.absolute().parent.name.lower() if known else ""
        for split in SPLITS:
            for match in matched(folder / f"{split}A", folder / f"{split}B"):
                yield PairFile(
                    id="/".join(filter(None, (stain, split, match.stem))),
                    stain=stain,
                    split=split,
                    he=match.he,
                    ihc=match.ihc,
                    mpp=_MPP if known else None,
                )
