"""What a run of `molgen sample` will make: sizes, seeds and batches, item by item and without a network.

Item k depends on the seed and its own name alone: not on how many items there are, nor on batch or shard.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Literal

from polydit.core.errors import InputError
from polydit.core.jobs.plan import Plan
from polydit.core.jobs.seeds import item_seed, item_uniform
from polydit.molgen.formulas import FormulaDistribution

Kind = Literal["molecule", "crystal"]

ID_PREFIX: Mapping[Kind, str] = {"molecule": "mol", "crystal": "crystal"}
LARGEST_POSITION = 2048  # ADiT's table of positions in a structure does not tell larger ones apart
_WINDOW_BATCHES = 16  # sorted by size at once: enough for 1-2 % padding, and small beside the network


@dataclass(frozen=True, slots=True)
class SizeDistribution:
    """Numbers of atoms with the weights they are drawn by.

    Args:
        sizes: Ascending.
        weights: Positive, one per size.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    @classmethod
    def parse(cls, text: str, histogram: Mapping[str, int], *, kind: str = "structure") -> SizeDistribution:
        """From `--atoms`.

        Args:
            text: "auto" = the histogram; "9" = always nine; "5-20" = the histogram between these, both
                included, or all of them alike where it is empty.
            histogram: Structures of the training data by number of atoms; empty if unknown.
            kind: Names the histogram in messages.

        Raises:
            InputError: It is none of these, or goes beyond the largest structure of the training data.
        """
        known = {int(size): float(count) for size, count in histogram.items() if count > 0}
        if text == "auto":
            if not known:
                raise InputError(
                    f"this checkpoint does not say how large its {kind}s are",
                    where="--atoms auto",
                    hint="Give a number or a range, such as --atoms 5-20.",
                )
            return cls._of(known)
        low, high = _parse_range(text)
        largest = max(known, default=LARGEST_POSITION)
        if not 1 <= low <= high <= largest:
            raise InputError(
                f"this checkpoint makes {kind}s of 1 to {largest} atoms",
                where=f"--atoms {text}",
                expected=f"a number or an ascending range within 1-{largest}",
            )
        within = {size: count for size, count in known.items() if low <= size <= high}
        return cls._of(within or dict.fromkeys(range(low, high + 1), 1.0))

    @classmethod
    def _of(cls, weights: Mapping[int, float]) -> SizeDistribution:
        sizes = tuple(sorted(weights))
        return cls(sizes, tuple(weights[size] for size in sizes))

    def draw(self, uniform: float) -> int:
        """The size at a number in [0, 1): the inverse of the cumulative distribution."""
        cumulative = list(accumulate(self.weights))
        return self.sizes[min(bisect_right(cumulative, uniform * cumulative[-1]), len(self.sizes) - 1)]

    @property
    def mean(self) -> float:
        """Mean number of atoms."""
        total = sum(size * weight for size, weight in zip(self.sizes, self.weights, strict=True))
        return total / sum(self.weights)


def _parse_range(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text)
    if match is None:
        raise InputError("is no number of atoms", where=f"--atoms {text}", expected="auto, 9 or 5-20")
    return int(match[1]), int(match[2] or match[1])


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """One structure to make: an `Item` of `run_batches`."""

    index: int
    id: str
    seed: int  # of its noise
    num_atoms: int
    formula: str = ""  # to ask for; empty = any


@dataclass(frozen=True, slots=True)
class BatchLimit:
    """When a batch is full.

    Args:
        items: Most structures in a batch; None = as many as the tokens allow.
        tokens: Most atom slots, padding included; None = as many as the items need.
    """

    items: int | None = None
    tokens: int | None = None

    def most(self, num_atoms: int) -> int:
        """How many structures fit when the largest has `num_atoms`."""
        by_tokens = self.tokens // num_atoms if self.tokens is not None else self.items
        counts = [count for count in (self.items, by_tokens) if count is not None]
        assert counts, "a limit limits something"
        return max(1, min(counts))


@dataclass(frozen=True, kw_only=True)
class SamplingPlan(Plan[PlannedSample]):
    """The structures of one call, drawn when they are asked for.

    Args:
        kind: "molecule" or "crystal".
        sizes: Where numbers of atoms are drawn from.
        formulas: Where formulas are drawn from, once the size is known; None = none is asked for.
    """

    kind: Kind
    sizes: SizeDistribution
    formulas: FormulaDistribution | None = None

    def sample(self, index: int) -> PlannedSample:
        """Structure `index` of the run, from 0."""
        name = f"{ID_PREFIX[self.kind]}-{index:06d}"
        num_atoms = self.sizes.draw(item_uniform(self.seed, f"{name}/num_atoms"))
        formula = ""
        if self.formulas is not None:
            formula = self.formulas.draw(num_atoms, item_uniform(self.seed, f"{name}/formula"))
        return PlannedSample(index, name, item_seed(self.seed, name), num_atoms, formula)

    def batches(self, limit: BatchLimit) -> Iterator[Sequence[PlannedSample]]:
        """Batches of similar sizes: windows of the run, each sorted and cut, the largest first.

        Largest first, because then memory that does not suffice shows in the first batch of a window. A
        window is some batches' worth, so memory does not depend on `num_samples`.
        """
        samples = iter(self)
        while window := list(islice(samples, _WINDOW_BATCHES * limit.most(round(self.sizes.mean)))):
            window.sort(key=lambda sample: (-sample.num_atoms, sample.index))
            while window:
                count = limit.most(window[0].num_atoms)
                yield window[:count]
                del window[:count]


def padded_tokens(batch: Sequence[PlannedSample]) -> int:
    """Atom slots of a batch, padding included: what its memory goes by."""
    return len(batch) * max(sample.num_atoms for sample in batch)
