"""HEMIT (Bian et al. 2024): `{train,val,test}/{input,label}/[x,y]_patch_i_j.tif`.

A label is a fluorescence image of three channels: a nuclear dye and two markers, so each file gives two pairs. They are
rendered in DAB, so that one model, one measure and one report serve them and brightfield stains alike. Which channel is
which must be said: the data set's README and its evaluation code disagree, and taken for each other the markers would
be learned under wrong names without any error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from polydit.core.datasets.splits import SPLITS
from polydit.core.errors import InputError
from polydit.vstain.data.layouts.listing import matched
from polydit.vstain.data.pair_file import Fluorescence, PairFile

_MARKERS = ("panck", "cd3")


def matches(path: Path) -> bool:
    """Whether a split has inputs and labels."""
    return any((path / split / "input").is_dir() and (path / split / "label").is_dir() for split in SPLITS)


def pairs(path: Path, *, channels: tuple[str, ...] | None = None) -> Iterator[PairFile]:
    """Two pairs of each label: one for each marker.

    Args:
        path: The data set.
        channels: Of the labels, in their order: "dapi", "panck" and "cd3".

    Raises:
        InputError: `channels` is None.
    """
    if channels is None:
        raise InputError(
            "the order of the labels' channels is not known: the README of HEMIT says dapi,panck,cd3, its evaluation "
            "reads dapi,cd3,panck",
            where=str(path),
            hint="Look at a label, then say its order: vstain data import --channels dapi,panck,cd3",
        )
    for split in SPLITS:
        for match in matched(path / split / "input", path / split / "label"):
            for marker in _MARKERS:
                yield PairFile(
                    id=f"{split}/{match.stem}/{marker}",
                    stain=marker,
                    split=split,
                    he=match.he,
                    ihc=match.ihc,
                    fluorescence=Fluorescence(channels.index("dapi"), channels.index(marker)),
                )
