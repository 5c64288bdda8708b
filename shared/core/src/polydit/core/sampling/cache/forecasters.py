"""What a value will be at a step that is not computed, from the steps that were: the first noun of a cache.

A forecaster is a setting; its `ladder` holds the past of one tensor in one run. Time t is in the forecaster's
coordinate, F is the value, t₀ is the last computed time and t₁, t₂ .. those before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Shaped
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.sampling.cache.clock import Coordinate


@runtime_checkable
class Ladder(Protocol):
    """The past of one tensor."""

    def record(self, time: float, value: Shaped[Tensor, "*shape"]) -> None:
        """Keep a computed value; times go on in one direction."""
        ...

    def forecast(self, time: float) -> Shaped[Tensor, "*shape"]:
        """The value at a time without one; needs one record at least."""
        ...


@runtime_checkable
class Forecaster(Protocol):
    """How values are carried forward."""

    @property
    def coordinate(self) -> Coordinate:
        """What time is."""
        ...

    def ladder(self) -> Ladder:
        """An empty past."""
        ...


@dataclass(frozen=True, slots=True)
class Reuse:
    """The last computed value. Memory: 1 tensor."""

    @property
    def coordinate(self) -> Coordinate:
        """It has no time."""
        return "step"

    def ladder(self) -> TaylorLadder:
        """An empty past: the series of order 0."""
        return TaylorLadder(0)


@dataclass(frozen=True, slots=True)
class Taylor:
    """TaylorSeer as published (Liu et al. 2025): F(t) ≈ Σᵢ fᵢ (t - t₀)ⁱ / i!.

    f₀ = F(t₀) and f_{i+1} = (fᵢ - fᵢ of the last record) / (t₀ - t₁). These are one-sided differences and not
    derivatives at t₀, so the error falls as that of order 1 does; `Newton` has the same cost and does not.

    Args:
        order: Terms after the first. Memory: order + 1 tensors.
        coordinate: What time is. Published: "step".

    Raises:
        InputError: A negative order.
    """

    order: int = 2
    coordinate: Coordinate = "step"

    def __post_init__(self) -> None:
        _check_order(self.order)

    def ladder(self) -> TaylorLadder:
        """An empty past."""
        return TaylorLadder(self.order)


@dataclass(frozen=True, slots=True)
class Newton:
    """The polynomial through the last values (Newton's divided differences), whatever lies between their times.

    F(t) ≈ F[t₀] + F[t₀,t₁] (t - t₀) + F[t₀,t₁,t₂] (t - t₀)(t - t₁) + ..., exact for polynomials of that degree. When
    more than about four steps lie between computed ones, order 1 is the better choice.

    Args:
        order: Degree. Memory: order + 1 tensors.
        coordinate: What time is: the number of the step, its noise level, or its log signal-to-noise ratio.

    Raises:
        InputError: A negative order.
    """

    order: int = 2
    coordinate: Coordinate = "step"

    def __post_init__(self) -> None:
        _check_order(self.order)

    def ladder(self) -> NewtonLadder:
        """An empty past."""
        return NewtonLadder(self.order)


class TaylorLadder:
    """See `Taylor`.

    Args:
        order: Terms after the first.
    """

    def __init__(self, order: int) -> None:
        self.order = order
        self.factors: list[Tensor] = []
        self._time = 0.0

    def record(self, time: float, value: Shaped[Tensor, "*shape"]) -> None:
        factors = [value]
        for old in self.factors[: self.order]:
            factors.append((factors[-1] - old) / (time - self._time))
        self.factors, self._time = factors, time

    def forecast(self, time: float) -> Shaped[Tensor, "*shape"]:
        total, weight = self.factors[0], 1.0
        for index, factor in enumerate(self.factors[1:], start=1):
            weight *= (time - self._time) / index
            total = total.add(factor, alpha=weight)
        return total


class NewtonLadder:
    """See `Newton`.

    Args:
        order: Degree.
    """

    def __init__(self, order: int) -> None:
        self.order = order
        self.differences: list[Tensor] = []
        self._times: list[float] = []  # the newest first

    def record(self, time: float, value: Shaped[Tensor, "*shape"]) -> None:
        differences = [value]
        for old, reach in zip(self.differences[: self.order], self._times, strict=False):
            differences.append((differences[-1] - old) / (time - reach))
        self.differences, self._times = differences, [time, *self._times[: self.order]]

    def forecast(self, time: float) -> Shaped[Tensor, "*shape"]:
        total, weight = self.differences[0], 1.0
        for difference, reach in zip(self.differences[1:], self._times, strict=False):
            weight *= time - reach
            total = total.add(difference, alpha=weight)
        return total


def _check_order(order: int) -> None:
    if order < 0:
        raise InputError(f"{order} is no order of a forecast", where="order", expected="0 or more")
