"""Which steps are computed and which are forecast: the third noun of a cache."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from polydit.core.errors import InputError
from polydit.core.sampling.cache.forecasters import Forecaster, Reuse


@runtime_checkable
class Policy(Protocol):
    """Chooses the steps that are computed in full."""

    def plan(self, num_steps: int) -> tuple[bool | None, ...]:
        """For each step: True = full, False = forecast, None = only the first block can tell (see `FirstBlock`)."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A full step, then `every` - 1 forecasts, and so on: the schedule of TaylorSeer.

    Args:
        every: 1 = every step is full.
        warm_up: Full steps at the start. Published: 2 for DiT, 3 for FLUX.
        cool_down: Full steps at the end. Published: 0.

    Raises:
        InputError: An interval or a warm-up below 1, or a negative cool-down.
    """

    every: int = 3
    warm_up: int = 2
    cool_down: int = 0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(
                f"no step can be full every {self.every} steps", where="interval", expected="1 or more"
            )
        _check_ends(self.warm_up, self.cool_down)

    def plan(self, num_steps: int) -> tuple[bool | None, ...]:
        """As the class says."""
        last_warm = self.warm_up - 1
        return tuple(
            step <= last_warm or step >= num_steps - self.cool_down or (step - last_warm) % self.every == 0
            for step in range(num_steps)
        )


@dataclass(frozen=True, slots=True)
class Table:
    """A schedule that was found before the run, for runs of its own number of steps only.

    Args:
        full: For each step, whether it is computed. The first must be.

    Raises:
        InputError: It is empty, or its first step is forecast from nothing.
    """

    full: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not self.full or not self.full[0]:
            raise InputError("the first step has nothing to be forecast from", where="schedule table")

    @classmethod
    def of_steps(cls, full_steps: Iterable[int], num_steps: int) -> Table:
        """The table whose full steps have these numbers, such as those of `optimal_sharing`."""
        chosen = set(full_steps)
        if strange := sorted(chosen - set(range(num_steps))):
            raise InputError(f"a table of {num_steps} steps has no step {strange[0]}", where="schedule table")
        return cls(tuple(step in chosen for step in range(num_steps)))

    def plan(self, num_steps: int) -> tuple[bool | None, ...]:
        """The table itself."""
        if num_steps != len(self.full):
            raise InputError(
                f"the schedule table is for {len(self.full)} steps and the run has {num_steps}",
                where="schedule table",
                hint=f"Sample with {len(self.full)} steps, or make a table for {num_steps}",
            )
        return self.full


@dataclass(frozen=True, kw_only=True, slots=True)
class FirstBlock:
    """The first block is always computed; if it did what was forecast of it, the site is forecast too.

    With the defaults it is FBCache: the first block's residual r (output minus input) against that of the last full
    step, mean |r - r'| / mean |r'|. With ``forecaster=Taylor(1), residual=False, threshold=0.03, warm_up=5,
    cool_down=1`` it is the gate of CG-Taylor (2508.02240): the first block's output h against its forecast,
    mean |ĥ - h| / mean |h|.

    The mean is over the whole batch, so what an item becomes depends on its batch.

    Args:
        threshold: Largest error at which a step is forecast; diffusers' default for FBCache is 0.05, cache-dit's 0.08.
        forecaster: Of the first block.
        residual: Whether the residual is compared, or the output.
        warm_up: Full steps at the start.
        cool_down: Full steps at the end.

    Raises:
        InputError: A negative threshold, a warm-up below 1 or a negative cool-down.
    """

    threshold: float = 0.08
    forecaster: Forecaster = field(default_factory=Reuse)
    residual: bool = True
    warm_up: int = 1
    cool_down: int = 0

    def __post_init__(self) -> None:
        if self.threshold < 0:
            raise InputError(
                f"{self.threshold} is no relative error", where="threshold", expected="0 or more"
            )
        _check_ends(self.warm_up, self.cool_down)

    def plan(self, num_steps: int) -> tuple[bool | None, ...]:
        """Full at both ends, open between them."""
        return tuple(
            True if step < self.warm_up or step >= num_steps - self.cool_down else None
            for step in range(num_steps)
        )


def _check_ends(warm_up: int, cool_down: int) -> None:
    if warm_up < 1:
        raise InputError(
            f"a warm-up of {warm_up} steps", where="warm_up", expected="1 or more: a cache starts empty"
        )
    if cool_down < 0:
        raise InputError(f"a cool-down of {cool_down} steps", where="cool_down", expected="0 or more")
