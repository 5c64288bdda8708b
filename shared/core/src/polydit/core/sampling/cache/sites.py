"""What is forecast in place of being computed: the second noun of a cache."""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache.blocks import BlockPorts, find_blocks
from polydit.core.sampling.cache.hooks import Forward, Handler, within
from polydit.core.sampling.cache.state import RunState


@runtime_checkable
class Site(Protocol):
    """A part of a network."""

    @property
    def first(self) -> int:
        """The first block that it touches."""
        ...

    def handlers(self, network: nn.Module, state: RunState) -> dict[nn.Module, Handler]:
        """What to do in place of the modules' own `forward`, for one run."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockRange:
    """A range of blocks: what it adds to its input (Δ-DiT, FBCache), or what it gives (CG-Taylor's last block).

    At a forecast step no block of the range is computed. Memory: (order + 1) tensors in all.

    Args:
        first: The first block of the range. 1 and more keep the news of the input.
        stop: The block after the last; None = all that follow. Negative: counted from the end.
        residual: True forecasts output minus input and adds it to the current input; False forecasts the output.
    """

    first: int = 1
    stop: int | None = None
    residual: bool = True

    def handlers(self, network: nn.Module, state: RunState) -> dict[nn.Module, Handler]:
        """One for each block of the range.

        Raises:
            InputError: The network has no such blocks.
        """
        blocks = find_blocks(network)
        chosen = blocks[self.first : self.stop]
        if self.first < 0 or not chosen:
            raise InputError(
                f"there are no blocks from {self.first} to {'the end' if self.stop is None else self.stop}",
                where="cache",
                expected=f"a range of the {len(blocks)} blocks",
            )
        visit = _Visit(state, self.residual, chosen)
        return {block: partial(visit, index) for index, block in enumerate(chosen)}


@dataclass(frozen=True, kw_only=True, slots=True)
class MovingRange:
    """Δ-DiT (Chen et al. 2024): what the last blocks add is forecast in the first steps, what the first ones add later.

    Early steps settle outlines, which the first blocks make; late ones settle details, which the last blocks make. Both
    residuals are kept at full steps, so that the change needs none. Memory: 2 · (order + 1) tensors.

    Args:
        blocks: How many, at either end.
        boundary: The first step at which the first blocks are forecast in place of the last ones.
    """

    blocks: int
    boundary: int

    @property
    def first(self) -> int:
        """It begins with the first block."""
        return 0

    def handlers(self, network: nn.Module, state: RunState) -> dict[nn.Module, Handler]:
        """One for each block of both ranges; a block may lie in both.

        Raises:
            InputError: The network has not so many blocks.
        """
        blocks = find_blocks(network)
        if not 1 <= self.blocks <= len(blocks):
            raise InputError(
                f"a range of {self.blocks} blocks",
                where="cache",
                expected=f"1 to {len(blocks)}, the blocks of the network",
            )
        early = _Visit(state, True, blocks[-self.blocks :], "last blocks", lambda step: step < self.boundary)
        late = _Visit(state, True, blocks[: self.blocks], "first blocks", lambda step: step >= self.boundary)
        found: dict[nn.Module, Handler] = {}
        for index, block in enumerate(blocks[: self.blocks]):
            found[block] = partial(late, index)
        for index, block in enumerate(blocks[-self.blocks :]):
            visit = partial(early, index)
            found[block] = within(found[block], visit) if block in found else visit
        return found


class _Visit:
    """The way of the tokens through a range in one run.

    Args:
        state: Of the run.
        residual: As in `BlockRange`.
        blocks: The range.
        place: Under which name its values are kept.
        serves: Whether the range may be forecast at a step; where it may not, its blocks are computed.
    """

    def __init__(
        self,
        state: RunState,
        residual: bool,
        blocks: Sequence[nn.Module],
        place: Hashable = "range",
        serves: Callable[[int], bool] = lambda step: True,
    ) -> None:
        self.state, self.residual, self.place, self.serves = state, residual, place, serves
        self.ports = [BlockPorts.of(block) for block in blocks]
        self.lengths = [0] * len(blocks)  # of the blocks' output tuples; 0 = a tensor
        self.entry: tuple[Tensor | None, ...] = ()

    def __call__(self, index: int, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.state.now.full and not self.serves(self.state.now.step):
            return forward(*args, **kwargs)
        ports, last = self.ports[index], index == len(self.ports) - 1
        if index == 0:
            self.entry = ports.read_inputs(args, kwargs)
        if self.state.now.full:
            return self._compute(index, last, forward, args, kwargs)
        if not last:  # what other parts of the network add on the way is in the forecast already
            return ports.write_outputs(ports.read_inputs(args, kwargs), self.lengths[index])
        values = self.state.forecast(self.place)
        if self.residual:
            values = _pairwise(operator.add, self.entry, values)
        self.entry = ()
        return ports.write_outputs(values, self.lengths[index])

    def _compute(
        self, index: int, last: bool, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        output = forward(*args, **kwargs)
        values = self.ports[index].read_outputs(output)
        self.lengths[index] = len(output) if isinstance(output, tuple) else 0
        if last:
            self._check(values)
            if self.serves(self.state.now.step):
                self.state.watched = self.place
            self.state.record(
                self.place, _pairwise(operator.sub, values, self.entry) if self.residual else values
            )
            self.entry = ()
        return output

    def _check(self, values: Sequence[Tensor | None]) -> None:
        for before, after in zip(self.entry, values, strict=False):
            if before is not None and after is not None and before.shape != after.shape and self.residual:
                raise InputError(
                    f"the range turns {tuple(before.shape)} into {tuple(after.shape)}, so it has no residual",
                    where="cache",
                    hint="Choose a range within which the tokens keep their shape",
                )


def _pairwise(
    combine: Callable[[Tensor, Tensor], Tensor], left: Sequence[Tensor | None], right: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """None where either is."""
    return tuple(
        None if one is None or other is None else combine(one, other)
        for one, other in zip(left, right, strict=False)
    )


def probe(state: RunState, residual: bool, block: nn.Module, judge: Callable[[Tensor], None]) -> Handler:
    """Computes the first block always, and shows `judge` what it gave."""
    ports = BlockPorts.of(block)

    def handler(forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = forward(*args, **kwargs)
        before, after = ports.read_inputs(args, kwargs)[0], ports.read_outputs(output)[0]
        if before is not None and after is not None:
            judge(after - before if residual else after)
        return output

    return handler
