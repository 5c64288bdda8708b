"""What `pointgen data make` and `import` write. Standard library only: the command line reads its defaults here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from polydit.core.datasets.splits import Percent, check_percent, check_seed
from polydit.core.errors import InputError

CATEGORIES = ("airplane", "car", "chair", "table")  # their order is part of every shape's seed
NUM_POINTS = 15_000  # of a stored shape, as in PC15k
FEWEST_POINTS, MOST_POINTS = 12, 1_000_000
PERCENT: Percent = (85, 10, 5)

Scaling = Literal["none", "unit-box"]


def _check(seed: int, num_points: int, percent: Percent) -> None:
    check_seed(seed)
    if not FEWEST_POINTS <= num_points <= MOST_POINTS:
        raise InputError(
            f"{num_points} points per shape are out of range", expected=f"{FEWEST_POINTS}..{MOST_POINTS}"
        )
    check_percent(percent, example=PERCENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeRecipe:
    """Parametric shapes.

    Args:
        categories: Some of `CATEGORIES`, each once.
        num: Shapes of each.
        num_points: Points of each shape.
        percent: Shares of train, val and test.
        seed: Of all shapes, 0..2^63-1.

    Raises:
        InputError: A value is out of range.
    """

    categories: tuple[str, ...] = CATEGORIES
    num: int = 1000
    num_points: int = NUM_POINTS
    percent: Percent = PERCENT
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.categories:
            if name not in CATEGORIES:
                raise InputError(
                    f"there is no generator of the category {name!r}", expected=", ".join(CATEGORIES)
                )
        if not self.categories or len(set(self.categories)) < len(self.categories):
            raise InputError("no category is named, or one twice", expected="each category once")
        if self.num < 0:
            raise InputError(f"{self.num} shapes are out of range", expected="0 or more")
        _check(self.seed, self.num_points, self.percent)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRecipe:
    """A folder of meshes or clouds, written anew.

    Args:
        source: Its path.
        category: Of all its shapes; "" = the name of the first folder below the source.
        scaling: "none", or "unit-box": each shape centred on its bounding box, longest side 1 (LION's norm_box).
        num_points: Points of each shape.
        percent: Shares of train, val and test of files that lie in no folder of such a name.
        seed: Of the points on meshes, and of the split.

    Raises:
        InputError: A value is out of range.
    """

    source: str
    category: str = ""
    scaling: Scaling = "none"
    num_points: int = NUM_POINTS
    percent: Percent = PERCENT
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scaling not in get_args(Scaling):
            raise InputError(f"the scaling {self.scaling!r} is unknown", expected="none or unit-box")
        _check(self.seed, self.num_points, self.percent)
