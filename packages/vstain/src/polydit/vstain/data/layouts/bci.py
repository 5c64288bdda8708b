"""BCI (Liu et al. 2022): `{HE,IHC}/{train,test}/00000_train_1+.png`; the name ends in the HER2 score."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from polydit.core.datasets.splits import SPLITS
from polydit.vstain.data.layouts.listing import matched
from polydit.vstain.data.pair_file import PairFile

_NAME = re.compile(r"\d+_(train|test)_[0-3]\+?")


def stain_of(stem: str) -> str:
    """ "her2" if this is a name of BCI's, else ""."""
    return "her2" if _NAME.fullmatch(stem) else ""


def matches(path: Path) -> bool:
    """Whether HE and IHC are there with the same splits below them."""
    return any((path / "HE" / split).is_dir() and (path / "IHC" / split).is_dir() for split in SPLITS)


def pairs(path: Path) -> Iterator[PairFile]:
    """The pairs of all splits."""
    for split in SPLITS:
        for match in matched(path / "HE" / split, path / "IHC" / split):
            stain = stain_of(match.stem)
            yield PairFile(
                id=match.stem if stain else f"{split}/{match.stem}",
                stain=stain, split=split, he=match.he, ihc=match.ihc,
            )  # fmt: skip
