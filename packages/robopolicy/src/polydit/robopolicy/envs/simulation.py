"""What all environments share: the guard before the simulator, LeRobot's keys, the count of steps, the pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from polydit.core.errors import InputError, PolyditError
from polydit.robopolicy.envs.instructions import instruction
from polydit.robopolicy.envs.protocol import Observation, Step
from polydit.robopolicy.envs.rendering import RenderConfig
from polydit.robopolicy.episode import IMAGES, STATE, TASK


class Simulation(ABC):
    """An `Env` around a gymnasium environment. A simulator is a subclass of some 50 lines.

    Args:
        task: One of the tasks of `name`.
        seed: Of the first episode that is begun without one.
        render: None = no pictures, and no graphics touched.

    Raises:
        InputError: There is no such task or camera.
        MissingExtraError: The simulator is not installed.
        PolyditError: Pictures are asked for and cannot be made here.
    """

    name: str
    fps: float
    max_steps: int

    def __init__(self, task: str, *, seed: int | None = None, render: RenderConfig | None = None) -> None:
        self.task, self.instruction = task, instruction(self.name, task)
        self._next_seed = seed or 0
        self._steps: int | None = None  # None = no episode
        self._gym = self._make()
        space = self._gym.action_space
        self.action_low = np.asarray(space.low, np.float32)
        self.action_high = np.asarray(space.high, np.float32)
        self._render = render
        try:
            self._cameras = self._chosen_cameras(render) if render else ()
        except BaseException:
            self.close()
            raise

    # --- what a simulator supplies ----------------------------------------------------------------------

    @abstractmethod
    def _make(self) -> Any:
        """The gymnasium environment."""

    @abstractmethod
    def _reset(self, seed: int) -> Any:
        """Begin an episode whose layout depends on the seed alone; the simulator's observation."""

    @abstractmethod
    def _state(self, raw: Any) -> Float[np.ndarray, " s"]:
        """The simulator's observation as one vector."""

    @abstractmethod
    def _succeeded(self, info: dict[str, Any]) -> bool:
        """Whether the task is solved now."""

    @abstractmethod
    def _open_cameras(self, config: RenderConfig) -> tuple[str, ...]:
        """Start making pictures; the names of all cameras, the usual one first."""

    @abstractmethod
    def _picture(self, camera: str, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        """What a camera sees now."""

    @abstractmethod
    def _close_cameras(self) -> None:
        """Stop making pictures; also where none were made."""

    # --- Env --------------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None) -> Observation:
        """See `Env`."""
        seed = self._next_seed if seed is None else seed
        if seed < 0:
            raise InputError(f"seed {seed} is negative", where=f"{self.name} {self.task}")
        self._next_seed, self._steps = seed + 1, 0
        return self._observation(self._reset(seed))

    def step(self, action: Float[np.ndarray, " _"]) -> Step:
        """See `Env`."""
        if self._steps is None or self._steps >= self.max_steps:
            state = "has not begun" if self._steps is None else f"ended after {self._steps} steps"
            raise PolyditError(f"the episode {state}", where=f"{self.name} {self.task}", hint="Call reset()")
        raw, reward, _, _, info = self._gym.step(bounded(action, self.action_low, self.action_high))
        self._steps += 1
        observation, truncated = self._observation(raw), self._steps == self.max_steps
        return Step(observation, float(reward), self._succeeded(info), truncated)

    def render(self) -> UInt8[np.ndarray, "h w 3"]:
        """See `Env`."""
        if self._render is None:
            problem = "the environment was made without pictures"
            raise InputError(problem, hint="Give make_env a RenderConfig")
        return self._picture(self._usual, self._render.view, self._render.view)

    def close(self) -> None:
        """See `Env`."""
        self._steps = None
        self._close_cameras()
        self._gym.close()

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ----------------------------------------------------------------------------------------------------

    def _chosen_cameras(self, config: RenderConfig) -> tuple[str, ...]:
        known = self._open_cameras(config)
        chosen = known[:1] if config.cameras is None else config.cameras
        if unknown := [camera for camera in chosen if camera not in known]:
            problem = f"there is no camera {', '.join(unknown)}"
            raise InputError(problem, where=f"{self.name} {self.task}", expected=" or ".join(known))
        self._usual = (*chosen, *known)[0]
        return chosen

    def _observation(self, raw: Any) -> Observation:
        state = np.asarray(self._state(raw), np.float32)
        if not np.isfinite(state).all():
            self._steps = self.max_steps  # nothing sensible can follow
            raise PolyditError(
                "the simulation broke down: its state is not finite", where=f"{self.name} {self.task}"
            )
        observation: dict[str, np.ndarray | str] = {STATE: state, TASK: self.instruction}
        for camera in self._cameras:
            assert self._render is not None
            observation[IMAGES + camera] = self._picture(camera, self._render.height, self._render.width)
        return observation


def bounded(
    action: Float[np.ndarray, " _"], low: Float[np.ndarray, " a"], high: Float[np.ndarray, " a"]
) -> Float32[np.ndarray, " a"]:
    """The action as a simulator may have it: clipped to the bounds.

    Raises:
        InputError: If it has another number of dimensions.
        PolyditError: If a number is not finite: clipping would turn a broken policy into a strong motion.
    """
    if np.shape(action) != low.shape:
        raise InputError(f"an action of shape {np.shape(action)}", expected=str(low.shape))
    if bad := np.flatnonzero(~np.isfinite(action)).tolist():
        index = bad[0]
        problem = f"output {index} of the policy is {action[index]}"
        raise PolyditError(problem, where="action", expected="a finite number", hint="Nothing was moved")
    return np.clip(action, low, high).astype(np.float32)
