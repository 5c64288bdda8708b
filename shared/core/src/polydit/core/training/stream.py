"""The order of training items as a function of (seed, step) alone: that is what makes resuming exact."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from polydit.core.errors import InputError


@runtime_checkable
class Stream(Protocol):
    """Batches by number."""

    def __getitem__(self, batch: int) -> Int[np.ndarray, " b"]:
        """Indices of batch number `batch` since the start of training."""
        ...

    def weight(self, batch: int) -> float:
        """Weight of that batch's loss; 1 on average."""
        ...


class BatchStream:
    """Endless batches of indices; every epoch is a permutation of all items.

    Batch `k` depends on the seed and `k` only, not on what was drawn before, nor on the number of processes.

    Args:
        count: Number of items, or their sizes: then each batch holds items of similar size, so that padding is small.
        batch_size: Items in a batch. The last items of an epoch that do not fill a batch are left out of that epoch.
        seed: Seed of the order.
        window: With sizes: an epoch is sorted by size inside windows of this many batches, then its batches are
            shuffled.
    """

    def __init__(
        self, count: int | Sequence[int], batch_size: int, seed: int = 0, *, window: int = 32
    ) -> None:
        self.sizes = None if isinstance(count, int) else np.asarray(count)
        self.count = count if isinstance(count, int) else len(count)
        if self.count < batch_size:
            hint = "Give more data or a smaller batch_size."
            raise InputError(f"{self.count} items cannot fill a batch of {batch_size}", hint=hint)
        self.batch_size, self.seed, self.window = batch_size, seed, window
        self._epoch, self._order = -1, np.empty((0, batch_size), dtype=np.int64)

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches in one pass over the items."""
        return self.count // self.batch_size

    def __getitem__(self, batch: int) -> Int[np.ndarray, " b"]:
        """Indices of batch number `batch` since the start of training."""
        epoch, position = divmod(batch, self.batches_per_epoch)
        if epoch != self._epoch:
            self._order, self._epoch = self._arrange(epoch), epoch
        return self._order[position]

    def weight(self, batch: int) -> float:
        """1: all batches are of one size."""
        return 1.0

    def _arrange(self, epoch: int) -> Int[np.ndarray, "batches b"]:
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.count)[: self.batches_per_epoch * self.batch_size]
        if self.sizes is None:
            return order.reshape(-1, self.batch_size)
        span = self.window * self.batch_size
        for start in range(0, len(order), span):
            part = order[start : start + span]
            order[start : start + span] = part[np.argsort(self.sizes[part], kind="stable")]
        return rng.permutation(order.reshape(-1, self.batch_size))


class InterleavedStream:
    """Batches of one group each, the groups taking turns: batch k is of group k modulo the number of groups.

    With as many micro-batches per step as groups, every step sees every group, without padding one to another's sizes.

    Args:
        groups: Group of each item; groups take turns in the order of their first item.
        sizes: Size of each item.
        batch_size: Items in a batch, on average over the groups.
        seed: Seed of the order.
        shares: Share of each group among the items that are drawn; None = all alike. A group's batches are larger and
            weigh more in the same measure, so that every item drawn counts the same.

    Raises:
        InputError: If a group has no share above 0, or too few items for its batch.
    """

    def __init__(
        self,
        groups: Sequence[Hashable],
        sizes: Sequence[int],
        batch_size: int,
        seed: int = 0,
        *,
        shares: Mapping[Any, float] | None = None,
    ) -> None:
        members: dict[Hashable, list[int]] = {}
        for index, group in enumerate(groups):
            members.setdefault(group, []).append(index)
        self._members = [np.array(indices) for indices in members.values()]
        parts = [1.0 if shares is None else shares.get(group, 0.0) for group in members]
        for group, part in zip(members, parts, strict=True):
            if part <= 0.0:
                raise InputError(f"items of {group!r} are given, and their share is {part:g}")
        counts = [max(1, round(batch_size * len(parts) * part / sum(parts))) for part in parts]
        self._weights = [count * len(counts) / sum(counts) for count in counts]
        self._streams = [
            BatchStream([sizes[i] for i in indices], count, seed)
            for indices, count in zip(members.values(), counts, strict=True)
        ]

    def __getitem__(self, batch: int) -> Int[np.ndarray, " b"]:
        """Indices of batch number `batch` since the start of training."""
        turn, group = divmod(batch, len(self._streams))
        return self._members[group][self._streams[group][turn]]

    def weight(self, batch: int) -> float:
        """Size of the batch over the average of the groups."""
        return self._weights[batch % len(self._weights)]
