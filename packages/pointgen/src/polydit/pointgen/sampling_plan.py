"""What a run will make: categories, seeds and inputs, item by item and without a network.

An item depends on the seed and its own name alone: not on how many items there are, nor on batch or shard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polydit.core.jobs.plan import Plan
from polydit.core.jobs.seeds import item_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShape:
    """One cloud to make: an `Item` of `run_batches`.

    Attributes:
        index: Its place in the run.
        id: Its name.
        seed: Of its noise.
        category: What it is to be.
        partial: File with the points that are known; None = none are.
        seed_to: The other end of an interpolation.
        mix: How far it is from `seed` to `seed_to`, 0..1.
    """

    index: int
    id: str
    seed: int
    category: str
    partial: Path | None = None
    seed_to: int | None = None
    mix: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SamplingPlan(Plan[PlannedShape]):
    """Clouds from noise, the categories in turn, so that all have equally many up to one.

    Chair 3 is the same alone and beside other categories.

    Args:
        categories: Without repetitions.
    """

    categories: Sequence[str]

    def sample(self, index: int) -> PlannedShape:
        """Cloud `index` of the run, from 0."""
        number, place = divmod(index, len(self.categories))
        category = self.categories[place]
        name = f"{category}-{number:06d}"
        return PlannedShape(index=index, id=name, seed=item_seed(self.seed, name), category=category)

    def counts(self) -> dict[str, int]:
        """Clouds of this call by category."""
        many = len(self.categories)
        counted = Counter(index % many for index in self.indices)
        return {name: counted[place] for place, name in enumerate(self.categories)}


@dataclass(frozen=True, kw_only=True)
class CompletionPlan(Plan[PlannedShape]):
    """Every input completed `num_samples` times: first all once, then all a second time, and so on.

    Args:
        inputs: Files with the points that are known.
        category: What all of them are.
    """

    inputs: Sequence[Path]
    category: str

    @property
    def num_items(self) -> int:
        """Completions of all inputs."""
        return self.num_samples * len(self.inputs)

    def sample(self, index: int) -> PlannedShape:
        """Completion `index` of the run, from 0."""
        number, place = divmod(index, len(self.inputs))
        path, name = self.inputs[place], input_names(self.inputs)[place]
        return PlannedShape(
            index=index,
            id=f"{name}-{number:03d}",
            seed=item_seed(self.seed, name, number),
            category=self.category,
            partial=path,
        )


def input_names(inputs: Sequence[Path]) -> list[str]:
    """A name for every file: its own without the ending, and as given where two would be the same."""
    stems = Counter(path.stem for path in inputs)
    return [path.stem if stems[path.stem] == 1 else path.as_posix() for path in inputs]


@dataclass(frozen=True, kw_only=True)
class InterpolationPlan(Plan[PlannedShape]):
    """A row of shapes from the noise of one seed to that of another; `num_samples` counts both ends.

    Args:
        category: What all of them are.
        seed_to: The seed of the last one; `seed` is that of the first. An item's seed in a manifest gives that item.
    """

    category: str
    seed_to: int

    def sample(self, index: int) -> PlannedShape:
        """Shape `index` of the row, from 0."""
        return PlannedShape(
            index=index,
            id=f"{self.category}-step-{index:03d}",
            seed=self.seed,
            category=self.category,
            seed_to=self.seed_to,
            mix=index / (self.num_samples - 1),
        )
