"""One episode in closed loop: a policy acts, an environment answers. Shapes: t steps, a action dimensions."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from polydit.robopolicy.envs.protocol import Env, Observation


@runtime_checkable
class Policy(Protocol):
    """What can act in an episode."""

    def reset(self, seed: int = 0) -> None:
        """Begin an episode; whatever is drawn in it follows from the seed."""
        ...

    def select_action(self, observation: Observation) -> Float[np.ndarray, " a"]:
        """The next action."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """What happened in an episode, from its start to its first success or its end.

    Attributes:
        success: The task was accomplished at the last step.
        actions: As they reached the environment.
        rewards: One per step.
        thinking: Seconds in which the policy chose its actions.
        seconds: Of the whole episode, its start included, but not of `watch`.
    """

    success: bool
    actions: Float[np.ndarray, "t a"]
    rewards: Float[np.ndarray, " t"]
    thinking: float
    seconds: float

    @property
    def steps(self) -> int:
        """Steps t."""
        return len(self.rewards)

    @property
    def reward(self) -> float:
        """Sum of the rewards."""
        return float(self.rewards.sum())

    def inference_ms(self, execute: int = 1) -> float:
        """Milliseconds that the policy took per chunk, of which it executed `execute` actions."""
        return 1000.0 * self.thinking / math.ceil(self.steps / execute)

    def trace(self) -> bytes:
        """Step by step as CSV: step, reward, action.0, action.1, ..."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["step", "reward", *(f"action.{k}" for k in range(self.actions.shape[1]))])
        for step, (reward, action) in enumerate(zip(self.rewards, self.actions, strict=True)):
            writer.writerow([step, f"{reward:.6g}", *(f"{value:.6g}" for value in action)])
        return text.getvalue().encode()


def rollout(
    env: Env,
    policy: Policy,
    seed: int,
    *,
    max_steps: int | None = None,
    watch: Callable[[], object] = lambda: None,
) -> Rollout:
    """Runs one episode.

    Args:
        env: The environment.
        policy: What acts.
        seed: Of the layout, and of what the policy draws.
        max_steps: Give up after so many steps; None = the environment's own limit.
        watch: Called before the first step and after each one, to film it.

    Raises:
        PolyditError: The policy's action is refused: it is of another shape, or no finite number.
    """
    whole, thinking, watching = _Clock(), _Clock(), _Clock()
    actions: list[Float[np.ndarray, " a"]] = []
    rewards: list[float] = []
    success = ended = False
    with whole:
        observation = env.reset(seed)
        policy.reset(seed)
        with watching:
            watch()
        limit = env.max_steps if max_steps is None else min(max_steps, env.max_steps)
        while not ended and len(actions) < limit:
            with thinking:
                action = policy.select_action(observation)
            step = env.step(action)  # which refuses what is no number, and clips what is out of bounds
            actions.append(np.clip(action, env.action_low, env.action_high))
            rewards.append(float(step.reward))
            observation, success = step.observation, bool(step.success)
            ended = success or bool(step.truncated)
            with watching:
                watch()
    return Rollout(
        success=success,
        actions=np.stack(actions),
        rewards=np.array(rewards),
        thinking=thinking.seconds,
        seconds=whole.seconds - watching.seconds,
    )


class _Clock:
    """Adds up the time spent inside of it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._entered
