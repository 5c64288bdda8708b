"""Tiles of a slide: cores that lie side by side on the world's coordinates, each seen with a margin round it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from polydit.core.errors import InputError
from polydit.vstain.slides.settings import Blend

MULTIPLE = 8  # pixels: networks take patches of whole multiples of it


class Box(NamedTuple):
    """Columns x to x + width, rows y to y + height."""

    x: int
    y: int
    width: int
    height: int


class Tile(NamedTuple):
    """One place of the grid.

    Attributes:
        number: Its place in the order of rows, from 0.
        x: Left edge of the patch, margin included; it may be negative.
        y: Upper edge of the patch.
        core: What of the slide the tile answers for.
    """

    number: int
    x: int
    y: int
    core: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Cores cover the slide without gap or overlap; the place of a core does not depend on what is tissue.

    Args:
        width: Of the slide in pixels of the network's resolution.
        height: Of the slide.
        patch: Side of what the network is given at once.
        margin: Pixels of each side of a patch that belong to the neighbours' cores.
        shift: Pixels that the grid is moved to the left and up.

    Raises:
        InputError: The values leave no core, or the patch is no multiple of 8.
    """

    width: int
    height: int
    patch: int = 256
    margin: int = 32
    shift: int = 0

    def __post_init__(self) -> None:
        if self.patch % MULTIPLE or self.patch < MULTIPLE:
            raise InputError(f"--patch {self.patch} is no multiple of {MULTIPLE}")
        if self.margin < 0 or self.core < MULTIPLE:
            problem = f"--margin {self.margin} leaves {self.core} pixels of a patch of {self.patch}"
            raise InputError(problem, expected=f"at least {MULTIPLE}")
        if not 0 <= self.shift < self.core or min(self.width, self.height) < 1:
            raise InputError(f"no grid of {self.width} x {self.height} pixels shifted by {self.shift}")

    @property
    def core(self) -> int:
        """Side of a core."""
        return self.patch - 2 * self.margin

    @property
    def columns(self) -> int:
        """Cores side by side."""
        return -(-(self.width + self.shift) // self.core)

    @property
    def rows(self) -> int:
        """Rows of cores."""
        return -(-(self.height + self.shift) // self.core)

    def __len__(self) -> int:
        return self.rows * self.columns

    def __iter__(self) -> Iterator[Tile]:
        return map(self.tile, range(len(self)))

    def tile(self, number: int) -> Tile:
        """The tile of that number."""
        row, column = divmod(number, self.columns)
        x, y = column * self.core - self.shift, row * self.core - self.shift
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + self.core, self.width), min(y + self.core, self.height)
        return Tile(number, x - self.margin, y - self.margin, Box(left, top, right - left, bottom - top))

    def reaching(self, box: Box, reach: int = 0) -> Iterator[Tile]:
        """The tiles of which the core, widened by `reach` pixels, meets the box; in the order of their numbers."""
        first_row = max((box.y - reach + self.shift) // self.core, 0)
        last_row = min((box.y + box.height - 1 + reach + self.shift) // self.core, self.rows - 1)
        first = max((box.x - reach + self.shift) // self.core, 0)
        last = min((box.x + box.width - 1 + reach + self.shift) // self.core, self.columns - 1)
        for row in range(first_row, last_row + 1):
            for column in range(first, last + 1):
                yield self.tile(row * self.columns + column)


def check_blend(grid: Grid, blend: Blend) -> None:
    """Raises InputError if more than two patches of a row would overlap in one place."""
    if blend == "feather" and grid.patch < 4 * grid.margin:
        problem = f"--blend feather needs a patch of at least {4 * grid.margin} for a margin of {grid.margin}"
        raise InputError(problem, hint="Choose a larger --patch or a smaller --margin.")
