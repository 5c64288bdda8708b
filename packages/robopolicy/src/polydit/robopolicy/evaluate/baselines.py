"""What a policy is measured against: the task's scripted expert, random actions, and no action at all."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from polydit.robopolicy.envs.experts import make_expert
from polydit.robopolicy.envs.protocol import Env, Expert, Observation
from polydit.robopolicy.evaluate.choice import Baseline
from polydit.robopolicy.evaluate.rollout import Policy


def make_baseline(name: Baseline, env: Env) -> Policy:
    """A baseline for an environment.

    Raises:
        InputError: It is the expert, and the task has none.
    """
    if name == "expert":
        return ExpertPolicy(make_expert(env.name, env.task))
    return RandomPolicy(env) if name == "random" else ZeroPolicy(env)


class ExpertPolicy:
    """A program that solves the task by rules; it draws nothing."""

    def __init__(self, expert: Expert) -> None:
        self._expert = expert

    def reset(self, seed: int = 0) -> None:
        """See `Policy`."""

    def select_action(self, observation: Observation) -> Float[np.ndarray, " a"]:
        """See `Policy`."""
        return self._expert(observation)


class RandomPolicy:
    """Every number of every action uniform within its bounds."""

    def __init__(self, env: Env) -> None:
        self._low, self._high = env.action_low, env.action_high
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """See `Policy`."""
        self._random = np.random.default_rng(seed)

    def select_action(self, observation: Observation) -> Float[np.ndarray, " a"]:
        """See `Policy`."""
        return self._random.uniform(self._low, self._high)


class ZeroPolicy:
    """The same action throughout: the one of zeros, or what is nearest to it within the bounds."""

    def __init__(self, env: Env) -> None:
        self._action = np.clip(np.zeros_like(env.action_low), env.action_low, env.action_high)

    def reset(self, seed: int = 0) -> None:
        """See `Policy`."""

    def select_action(self, observation: Observation) -> Float[np.ndarray, " a"]:
        """See `Policy`."""
        return self._action
