"""What one sampling run remembers: the tensors of its places, and where it stands."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.sampling.cache.forecasters import Forecaster, Ladder


def relative_error(forecast: Tensor, value: Tensor, reference: Tensor) -> Tensor:
    """mean |forecast - value| / mean |reference|."""
    return (forecast - value).abs().mean() / reference.abs().mean().clamp(min=torch.finfo(value.dtype).tiny)


class Memory:
    """The past of one place: a ladder for each tensor that it gives.

    Args:
        forecaster: Makes the ladders.
    """

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        self._ladders: list[Ladder | None] = []

    def __bool__(self) -> bool:
        return bool(self._ladders)

    def record(self, time: float, values: Sequence[Tensor | None]) -> None:
        """Keep computed values; None stays None."""
        if any(value is not None and value.requires_grad for value in values):
            raise InputError(
                "a cache cannot be differentiated", where="cache", hint="Sample under torch.no_grad()"
            )
        if not self._ladders:
            self._ladders = [None if value is None else self._forecaster.ladder() for value in values]
        for ladder, value in zip(self._ladders, values, strict=True):
            if ladder is not None and value is not None:
                ladder.record(time, value)

    def forecast(self, time: float) -> tuple[Tensor | None, ...]:
        """One entry for each value."""
        return tuple(None if ladder is None else ladder.forecast(time) for ladder in self._ladders)


@dataclass(slots=True)
class Moment:
    """Where the run stands.

    Args:
        step: Counted from 0.
        call: Of the step's network calls, counted from 0.
        time: In the forecaster's coordinate.
        full: Whether it is computed; None = the first block has not told yet.
    """

    step: int
    call: int
    time: float
    full: bool | None


class RunState:
    """Owned by one run, filled by its sites.

    Args:
        forecaster: Of all places.
    """

    def __init__(self, forecaster: Forecaster) -> None:
        self.forecaster = forecaster
        self.now = Moment(0, 0, 0.0, True)
        self.errors: dict[int, Tensor] = {}  # of the forecasts at full steps, by step
        self.watched: Hashable = None  # the place whose forecast is judged
        self._memories: dict[tuple[Hashable, int], Memory] = {}

    def forget(self, call: int) -> None:
        """Drop what is remembered for one of the step's calls."""
        self._memories = {key: memory for key, memory in self._memories.items() if key[1] != call}

    def knows(self, call: int) -> bool:
        """Whether a full step came before for this call."""
        return any(key[1] == call for key in self._memories)

    def record(self, place: Hashable, values: Sequence[Tensor | None]) -> None:
        """Keep what a place gave at this moment."""
        memory = self._memories.setdefault((place, self.now.call), Memory(self.forecaster))
        first = values[0]
        if place == self.watched and memory and first is not None:
            forecast = memory.forecast(self.now.time)[0]
            if forecast is not None:
                self.errors[self.now.step] = relative_error(forecast, first, first)
        memory.record(self.now.time, values)

    def forecast(self, place: Hashable) -> tuple[Tensor | None, ...]:
        """What a place would give at this moment."""
        return self._memories[place, self.now.call].forecast(self.now.time)
