"""A pair that lies on the disk: what the adapters of the layouts give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import UInt8

from polydit.core.errors import InputError
from polydit.vstain.data.images import image_size, read_mask, read_rgb
from polydit.vstain.pairs import StainPair

PairSplit = Literal["train", "val", "test", ""]


class Fluorescence(NamedTuple):
    """Which channels of a fluorescence image make its stain: numbers from 0."""

    nuclei: int
    marker: int


class Rejected(NamedTuple):
    """A pair that cannot be used, and why."""

    source: str
    reason: str

    @classmethod
    def of(cls, error: InputError, source: str) -> Rejected:
        """What an error says, with its place apart; `source` where it names none."""
        reason = error.problem + (f"; expected {error.expected}" if error.expected else "")
        return cls(error.where or source, reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFile:
    """A pair of images that has not been read.

    Args:
        id: Its name in the data set; each once.
        stain: Name of the marker in lower case; "" = not known.
        split: "train", "val", "test", or "" where the data are not split.
        he: The H&E image.
        ihc: The stain; the same file where both are glued side by side, H&E on the left.
        mask: Of positive cells; None = there is none.
        mpp: Microns per pixel; None = not known.
        fluorescence: Where the stain is a fluorescence image: which channels it is rendered from.
        source: What lists the pair, such as a row of a CSV file; "" = its files.
    """

    id: str
    stain: str
    split: PairSplit
    he: Path
    ihc: Path
    mask: Path | None = None
    mpp: float | None = None
    fluorescence: Fluorescence | None = None
    source: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files, each once."""
        return tuple(dict.fromkeys(path for path in (self.he, self.ihc, self.mask) if path is not None))

    @property
    def is_glued(self) -> bool:
        """Whether both images lie side by side in one file."""
        return self.he == self.ihc

    def size(self) -> tuple[int, int]:
        """Width and height of each image, from the header of the H&E alone.

        Raises:
            InputError: It cannot be read.
        """
        width, height = image_size(self.he)
        return (width // 2 if self.is_glued else width), height

    def read(self) -> StainPair:
        """The images.

        Raises:
            InputError: A file is missing or damaged, or the sizes differ.
        """
        try:
            return self._read()
        except InputError as error:
            if not self.source:
                raise
            where = f"{self.source}: {error.where}"
            raise InputError(error.problem, where=where, expected=error.expected, hint=error.hint) from error

    def _read(self) -> StainPair:
        he, ihc = _halves(self.he) if self.is_glued else (read_rgb(self.he), read_rgb(self.ihc))
        mask = None if self.mask is None else read_mask(self.mask)
        for path, image in ((self.ihc, ihc), (self.mask, mask)):
            if image is not None and image.shape[:2] != he.shape[:2]:
                problem = f"{_size(image)} pixels, but its H&E has {_size(he)}"
                raise InputError(problem, where=str(path), expected="images of one size")
        if self.fluorescence is not None:
            from polydit.vstain.data.fluorescence import brightfield

            ihc = brightfield(ihc[..., self.fluorescence.nuclei], ihc[..., self.fluorescence.marker])
        return StainPair(id=self.id, he=he, ihc=ihc, mask=mask, stain=self.stain, mpp=self.mpp)


def _halves(path: Path) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]]:
    both = read_rgb(path)
    if both.shape[1] % 2:
        raise InputError(
            f"{both.shape[1]} columns are not two images", where=str(path), expected="an even number"
        )
    middle = both.shape[1] // 2
    return both[:, :middle], both[:, middle:]


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"
