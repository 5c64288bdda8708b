"""Pairs of any layout: `find_pairs` recognises it and lists them; nothing is read before `PairFile.read`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from polydit.core.errors import InputError
from polydit.vstain.data.pair_file import PairFile as PairFile
from polydit.vstain.data.recipe import LAYOUTS, check_layout


@runtime_checkable
class _Layout(Protocol):
    """What a module of `layouts` holds."""

    def matches(self, path: Path) -> bool:
        """Whether the path looks like this layout."""

    def pairs(self, path: Path, **options: Any) -> Iterator[PairFile]:
        """The pairs below it."""


def find_pairs(
    path: Path,
    *,
    split: str | None = None,
    stain: str | None = None,
    layout: str = "auto",
    channels: tuple[str, ...] | None = None,
) -> list[PairFile]:
    """The pairs of a data set, in the order of their splits and names, or of the rows of its manifest.

    A pair of which a file is missing is listed too: `PairFile.read` says which.

    Args:
        path: A folder of the layout, or a CSV file.
        split: Only this one: "train", "val" or "test".
        stain: Only this marker; where the data name none, the marker of all pairs.
        layout: One of `LAYOUTS`; "auto" = the first that fits.
        channels: Of HEMIT's labels, in their order: "dapi", "panck" and "cd3".

    Raises:
        InputError: There is no such path, no layout fits, a manifest is wrong, or no pair is of the split and stain.
    """
    check_layout(layout, channels)
    if not path.exists():
        raise InputError("there is no such file or folder", where=str(path))
    name = _recognised(path) if layout == "auto" else layout
    options = {"channels": channels} if name == "hemit" else {}
    found = list(_module(name).pairs(path, **options))
    if stain is not None:
        found = [replace(pair, stain=pair.stain or stain.lower()) for pair in found]
    chosen = [
        pair
        for pair in found
        if (split is None or pair.split == split) and (stain is None or pair.stain == stain.lower())
    ]
    if not chosen:
        raise _nothing(path, name, found, split, stain)
    return chosen


def _module(layout: str) -> _Layout:
    return cast("_Layout", import_module(f"polydit.vstain.data.layouts.{layout}"))


def _recognised(path: Path) -> str:
    for name in LAYOUTS:
        if _module(name).matches(path):
            return name
    raise InputError(
        "no layout of paired images is recognised",
        where=str(path),
        expected="manifest.csv; HE/ and IHC/ or A/ and B/ of the same names; {train,val,test}/{input,label} (HEMIT); "
        "trainA/ trainB/ (MIST); {HE,IHC}/{train,test} (BCI); or images twice as wide as high, glued side by side",
    )


def _nothing(
    path: Path, layout: str, found: list[PairFile], split: str | None, stain: str | None
) -> InputError:
    asked = " ".join(word for word in (split, stain) if word)
    there = sorted({" ".join(word for word in (pair.split, pair.stain) if word) for pair in found} - {""})
    unsplit = split is not None and any(not pair.split for pair in found)
    return InputError(
        f"it has no pairs of {asked}" if found and asked else "it has no pairs",
        where=str(path),
        expected=f"one of {', '.join(there)}" if there else f"pairs in the layout {layout}",
        hint="Its pairs are in no split: share them out with vstain data import" if unsplit else None,
    )
