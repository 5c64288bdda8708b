"""What an environment gives and takes. Keys of observations are LeRobot's: "observation.state", "task", ..."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

Observation = Mapping[str, np.ndarray | str]
"""`observation.state` (float32), `observation.images.<camera>` (h w 3 RGB, uint8) where asked for, and `task`."""


@dataclass(frozen=True, slots=True)
class Step:
    """What followed an action.

    Args:
        observation: What the robot sees now.
        reward: Of this step, in the environment's own measure.
        success: Whether the task is solved now. The episode goes on: it may be undone.
        truncated: The last step of the episode.
    """

    observation: Observation
    reward: float
    success: bool
    truncated: bool


@runtime_checkable
class Env(Protocol):
    """One task in one simulator; also a context manager that closes it."""

    @property
    def name(self) -> str:
        """Name for `make_env`."""
        ...

    @property
    def task(self) -> str:
        """The task's name in the simulator."""
        ...

    @property
    def instruction(self) -> str:
        """The task in words; `task` of every observation."""
        ...

    @property
    def fps(self) -> float:
        """Steps per second of the robot's time."""
        ...

    @property
    def max_steps(self) -> int:
        """Steps after which an episode is truncated."""
        ...

    @property
    def action_low(self) -> Float[np.ndarray, " a"]:
        """Least value of each number in an action."""
        ...

    @property
    def action_high(self) -> Float[np.ndarray, " a"]:
        """Greatest value of each number in an action."""
        ...

    def reset(self, seed: int | None = None) -> Observation:
        """Begin an episode. Equal seeds give equal layouts, whatever happened before and in every process.

        Args:
            seed: Not negative; None = one more than that of the last episode.
        """
        ...

    def step(self, action: Float[np.ndarray, " a"]) -> Step:
        """Act once; what is out of bounds is clipped.

        Raises:
            PolyditError: If a number is not finite (nothing moves then), the simulator breaks down, or the
                episode has not begun or is over.
            InputError: If the number of dimensions differs.
        """
        ...

    def render(self) -> UInt8[np.ndarray, "h w 3"]:
        """A picture for people, RGB.

        Raises:
            InputError: If the environment was made without pictures.
        """
        ...

    def close(self) -> None:
        """Free the simulator and its pictures; may be called twice."""
        ...

    def __enter__(self) -> Env: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Expert(Protocol):
    """A program that solves one task by rules."""

    def __call__(self, observation: Observation) -> Float[np.ndarray, " a"]:
        """The action to take; it may be out of bounds."""
        ...
