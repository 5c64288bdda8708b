"""Images of folders side by side, matched by their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from polydit.core.errors import InputError
from polydit.vstain.data.images import SUFFIXES


class Match(NamedTuple):
    """Files of one stem; where one is missing, the path at which it would lie."""

    stem: str
    he: Path
    ihc: Path
    mask: Path | None


def images(folder: Path) -> dict[str, Path]:
    """The images of a folder by their stems, sorted; those of a folder that is missing are none.

    Raises:
        InputError: Two images have one stem.
    """
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise InputError(
                f"two images are named {path.stem!r}", where=str(folder), expected="each name once"
            )
        found[path.stem] = path
    return found


def matched(he: Path, ihc: Path, mask: Path | None = None) -> Iterator[Match]:
    """Images of the same stems in two folders, or three; a mask may be missing, and is then None.

    Raises:
        InputError: Two images of a folder have one stem.
    """
    left, right = images(he), images(ihc)
    masks = images(mask) if mask else {}
    for stem in sorted({*left, *right}):
        yield Match(
            stem,
            left.get(stem) or he / right[stem].name,
            right.get(stem) or ihc / left[stem].name,
            masks.get(stem),
        )
