"""What a module gives, computed or forecast: of the whole network as the site of a cache, or of a part of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from diffusers.utils import BaseOutput
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache.hooks import Forward, Handler
from polydit.core.sampling.cache.state import RunState


@dataclass(frozen=True, slots=True)
class Output:
    """What the network itself gives: at a forecast step nothing of it is computed, not even the way into its blocks.

    Guidance that mixes the network's outputs linearly, as classifier-free guidance does, makes it the forecast of the
    guided output. Memory: order + 1 outputs, which are as small as the sample.
    """

    @property
    def first(self) -> int:
        """It begins with the first block."""
        return 0

    def handlers(self, network: nn.Module, state: RunState) -> dict[nn.Module, Handler]:
        """One, for the network."""
        state.watched = "output"
        return {network: Outputs(state, "output")}


class Outputs:
    """The handler of one module in one run: a tensor, a tuple of tensors or an output of diffusers.

    Args:
        state: Of the run.
        place: Under which name its values are kept.
        serves: Whether it may be forecast at a step; where it may not, it is computed.
    """

    def __init__(
        self, state: RunState, place: Hashable, serves: Callable[[int], bool] = lambda step: True
    ) -> None:
        self.state, self.place, self.serves = state, place, serves
        self._packed: Callable[[tuple[Tensor | None, ...]], Any] = tuple

    def __call__(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.state.now.full and self.serves(self.state.now.step):
            return self._packed(self.state.forecast(self.place))
        output = forward(*args, **kwargs)
        values, self._packed = _unpacked(output)
        if any(value is not None and not isinstance(value, Tensor) for value in values):
            raise InputError(
                f"module {self.place} gives more than tensors: {', '.join(type(v).__name__ for v in values)}",
                where="cache",
                hint="Cache other modules, or no modules but whole blocks",
            )
        self.state.record(self.place, values)
        return output


def _unpacked(output: Any) -> tuple[tuple[Any, ...], Callable[[tuple[Tensor | None, ...]], Any]]:
    """The values of an output, and what makes such an output of others."""
    if isinstance(output, BaseOutput):
        kind, names = type(output), tuple(output.keys())
        return output.to_tuple(), lambda values: kind(**dict(zip(names, values, strict=True)))
    if isinstance(output, tuple):
        return output, tuple
    return (output,), lambda values: values[0]
