"""Programs that solve tasks by rules: MetaWorld's for its 50 tasks, and a proportional controller for FetchReach."""

from __future__ import annotations

import warnings
from typing import Any, Final

import numpy as np
from jaxtyping import Float

from polydit.core.errors import InputError
from polydit.robopolicy.envs.extras import import_extra
from polydit.robopolicy.envs.instructions import instruction, tasks
from polydit.robopolicy.envs.protocol import Expert, Observation
from polydit.robopolicy.episode import STATE

_REACH: Final = "FetchReach-v4"
_GAIN: Final = 10.0  # per m; 20 would go the whole way in one step, as an action of 1 moves by 5 cm


def expert_tasks(name: str) -> tuple[str, ...]:
    """The environment's tasks that have an expert; perhaps none.

    Raises:
        InputError: There is no such environment.
    """
    known = tasks(name)
    return {"metaworld": known, "fetch": (_REACH,)}.get(name, ())


def make_expert(name: str, task: str) -> Expert:
    """The expert of a task.

    Raises:
        InputError: There is no such task, or it has no expert.
        MissingExtraError: The simulator is not installed.
    """
    instruction(name, task)
    having = expert_tasks(name)
    if task not in having:
        some = " or ".join(having) or "metaworld's tasks"
        raise InputError(f"{name}'s task {task!r} has no scripted expert", expected=some)
    return reach_goal if name == "fetch" else MetaWorldExpert(task)


class MetaWorldExpert:
    """The script that comes with MetaWorld. It keeps nothing between steps.

    Args:
        task: One of the 50.

    Raises:
        MissingExtraError: MetaWorld is not installed.
    """

    def __init__(self, task: str) -> None:
        policies = import_extra("metaworld.policies", extra="metaworld")
        self._policy: Any = policies.ENV_POLICY_MAP[task]()

    def __call__(self, observation: Observation) -> Float[np.ndarray, " a"]:
        """See `Expert`."""
        state = np.asarray(observation[STATE], np.float64)
        with warnings.catch_warnings():
            # Out-of-bounds actions are its habit; whoever executes them clips.
            warnings.filterwarnings("ignore", message="Constant")
            action: np.ndarray = self._policy.get_action(state)
        return action


def reach_goal(observation: Observation) -> Float[np.ndarray, " a"]:
    """FetchReach: towards the goal, the faster the farther it is."""
    state = np.asarray(observation[STATE])
    return np.append(_GAIN * (state[-3:] - state[:3]), np.float32(0))
