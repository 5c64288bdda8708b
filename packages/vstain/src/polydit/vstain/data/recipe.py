"""What `vstain data make` and `import` write. Standard library only: the command line reads its defaults here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polydit.core.datasets.splits import Percent, check_percent, check_seed
from polydit.core.errors import InputError

STAINS = ("ck", "cd3")  # that the procedural slide knows
MPP = 0.5  # its microns per pixel
TILE = 256  # pixels of a tile's side
PERCENT: Percent = (80, 10, 10)
LAYOUTS = ("manifest", "hemit", "mist", "bci", "folders", "glued")  # in the order in which "auto" tries them


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeRecipe:
    """Tiles of procedural slides.

    Args:
        num: Tiles, of all stains together.
        stains: Some of `STAINS`, each once; tiles take turns.
        percent: Shares of train, val and test.
        seed: Of all tiles, 0..2^63-1.
        coverage: Share of a slide that is tissue; the rest is glass.

    Raises:
        InputError: A value is out of range.
    """

    num: int = 2000
    stains: tuple[str, ...] = STAINS
    percent: Percent = PERCENT
    seed: int = 0
    coverage: float = 0.9

    def __post_init__(self) -> None:
        for name in self.stains:
            if name not in STAINS:
                raise InputError(f"there is no procedural stain {name!r}", expected=", ".join(STAINS))
        if not self.stains or len(set(self.stains)) < len(self.stains):
            raise InputError("no stain is named, or one twice", expected="each stain once")
        if self.num < 0:
            raise InputError(f"{self.num} tiles are out of range", expected="0 or more")
        if not 0.0 <= self.coverage <= 1.0:
            raise InputError(f"a coverage of {self.coverage:g} is out of range", expected="0..1")
        check_seed(self.seed)
        check_percent(self.percent, example=PERCENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRecipe:
    """Pairs of another layout, cut to tiles.

    Args:
        source: Path of the data.
        layout: One of `LAYOUTS`, or "auto".
        stain: Only this marker; where the layout names none, the marker of all pairs. None = as the layout says.
        channels: Of HEMIT's labels, in their order: "dapi", "panck" and "cd3"; None = not known.
        tile: Pixels of a tile's side.
        mpp: Microns per pixel to resample to; None = as the images are.
        source_mpp: Microns per pixel of the images where the data do not say; None = not known.
        percent: Shares of train, val and test of pairs that are in no split.
        seed: Of that split.

    Raises:
        InputError: A value is out of range.
    """

    source: str
    layout: str = "auto"
    stain: str | None = None
    channels: tuple[str, ...] | None = None
    tile: int = TILE
    mpp: float | None = None
    source_mpp: float | None = None
    percent: Percent = PERCENT
    seed: int = 0

    def __post_init__(self) -> None:
        check_layout(self.layout, self.channels)
        if not 16 <= self.tile <= 8192:
            raise InputError(f"tiles of {self.tile} pixels are out of range", expected="16..8192")
        for mpp in (self.mpp, self.source_mpp):
            if mpp is not None and not 0.01 <= mpp <= 100:
                raise InputError(f"{mpp:g} microns per pixel are out of range", expected="0.01..100")
        check_seed(self.seed)
        check_percent(self.percent, example=PERCENT)


def check_layout(layout: str, channels: Sequence[str] | None = None) -> None:
    """Raises InputError if there is no such layout or order of channels."""
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"the layout {layout!r} is unknown", expected=", ".join(("auto", *LAYOUTS)))
    if channels is not None and sorted(channels) != ["cd3", "dapi", "panck"]:
        raise InputError(
            f"the channels {','.join(channels)} are not understood",
            expected="dapi, panck and cd3 in their order",
        )
