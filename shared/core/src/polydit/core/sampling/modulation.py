"""The modulation of a whole sampling run, made before its first step: the loop then reads no modulation weights.

At few tokens a forward is bound by reading weights, and a third of a block's are those of its modulation, which depends
on time and condition alone. So one product makes the tables of all (step, condition) pairs, and within the loop those
weights need not be on the device.

Shapes: s steps, u distinct conditions, b items of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.nn.modulation import ModulationTable

_MOST_PAIRS = 512  # in memory at once; of DiT-XL/2 in 32 bits 400 MB


class ModulationSchedule:
    """Tables for the steps of one run, in their order.

    Pairs beyond the first 512 are made when the loop comes to them, as many at a time.

    Args:
        modulate: Of the network: times and conditions, a row for each pair, to its table.
        times: What the network is told at each step.
        conditions: What `modulate` takes besides, each with a row for every distinct condition.
        rows: Which condition each item of the batch has.

    Raises:
        InputError: There are no steps, or the conditions differ in number.

    >>> schedule = ModulationSchedule(network.modulate, times, [labels], rows)
    >>> tables = iter(schedule)
    >>> def predict(x, timestep, previous):
    ...     return network(x, modulation=next(tables)).sample
    """

    def __init__(
        self,
        modulate: Callable[..., ModulationTable],
        times: Float[Tensor, " s"] | Int[Tensor, " s"],
        conditions: Sequence[Tensor],
        rows: Int[Tensor, " b"],
    ) -> None:
        if not len(times) or len({len(condition) for condition in conditions}) != 1:
            problem = (
                f"{len(times)} steps and conditions of {[len(condition) for condition in conditions]} rows"
            )
            raise InputError(
                problem, where="modulation", expected="a step, and as many rows of each condition"
            )
        self._modulate, self._times, self._conditions, self._rows = modulate, times, conditions, rows
        self._distinct = len(conditions[0])
        self._at_once = max(1, _MOST_PAIRS // self._distinct)
        self._first = self._made(0)

    def __len__(self) -> int:
        """Steps s."""
        return len(self._times)

    def __iter__(self) -> Iterator[ModulationTable]:
        """The table of each step, with a row for each item."""
        table = self._first
        for step in range(len(self)):
            place = step % self._at_once
            if place == 0 and step:
                table = self._made(step)
            yield table.rows(self._rows + place * self._distinct)

    @torch.no_grad()
    def _made(self, step: int) -> ModulationTable:
        """The tables from a step on, those of one step after those of the other."""
        times = self._times[step : step + self._at_once]
        repeated = (c.repeat(len(times), *(1,) * (c.ndim - 1)) for c in self._conditions)
        return self._modulate(times.repeat_interleave(self._distinct), *repeated)
