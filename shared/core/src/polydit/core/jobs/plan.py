"""What a call will make, item by item: drawn when it is asked for, in parts for several machines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from polydit.core.jobs.items import Item
from polydit.core.jobs.manifest import Manifest, Status

T = TypeVar("T", bound=Item)


@dataclass(frozen=True, slots=True)
class Shard:
    """The part ``index`` (from 0) of ``count`` equal parts of a run."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def owns(self, position: int) -> bool:
        """Whether the item at ``position`` (from 0) belongs to this part."""
        return position % self.count == self.index


@dataclass(frozen=True, kw_only=True)
class Plan(ABC, Generic[T]):
    """The items of one call. Item k depends on its own index alone: not on how many there are, batch or shard.

    Args:
        num_samples: Items of the whole run, unless a plan counts them otherwise.
        seed: Base seed.
        shard: The part of the run that this call does; None = all of it.
        limit: At most so many of them, the first; None = all.
    """

    num_samples: int
    seed: int = 0
    shard: Shard | None = None
    limit: int | None = None

    @abstractmethod
    def sample(self, index: int) -> T:
        """Item `index` of the run, from 0."""

    @property
    def num_items(self) -> int:
        """Items of the whole run."""
        return self.num_samples

    @property
    def indices(self) -> range:
        """Those of this call."""
        first, step = (self.shard.index, self.shard.count) if self.shard else (0, 1)
        indices = range(first, self.num_items, step)
        return indices if self.limit is None else indices[: self.limit]

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[T]:
        return map(self.sample, self.indices)

    def groups(self, size: int) -> Iterator[Sequence[T]]:
        """Batches of `size` items in the order of the run."""
        items = iter(self)
        while group := list(islice(items, size)):
            yield group

    def missing(self, manifest: Manifest, *, retry_failed: bool = False) -> int:
        """How many items this call has to make.

        Args:
            manifest: What earlier calls made.
            retry_failed: Make again what failed.
        """
        done: tuple[Status, ...] = ("ok",) if retry_failed else ("ok", "failed")
        if not any(manifest.count(status) for status in done):
            return len(self)
        return sum(manifest.status(item.id) not in done for item in self)
