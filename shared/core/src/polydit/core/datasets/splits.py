"""Train, val and test: their names, shares that a user gives, and who goes where. Standard library only."""

from __future__ import annotations

from typing import Literal

from polydit.core.errors import InputError

LARGEST_SEED = 2**63 - 1

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Percent = tuple[int, int, int]  # of train, val and test


def split_order(num: int, percent: Percent) -> list[Split]:
    """The split of each of `num` entries, train first; train takes what rounding leaves."""
    val, test = ((2 * num * share + 100) // 200 for share in percent[1:])  # halves are rounded up
    val = min(val, num)
    test = min(test, num - val)
    counts = zip(SPLITS, (num - val - test, val, test), strict=True)
    return [split for split, count in counts for _ in range(count)]


def check_percent(percent: Percent, *, example: Percent) -> None:
    """Raises InputError unless the shares add up to 100; the message gives the example."""
    if len(percent) != len(SPLITS) or min(percent) < 0 or sum(percent) != 100:
        shares = " ".join(map(str, example))
        raise InputError(
            f"the split {' '.join(map(str, percent))} is not understood",
            expected=f"percentages of train, val and test that add up to 100, such as {shares}",
        )


def check_seed(seed: int) -> None:
    """Raises InputError if the seed is none of 0..`LARGEST_SEED`, which every generator takes."""
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"the seed {seed} is out of range", expected=f"0..{LARGEST_SEED}")
