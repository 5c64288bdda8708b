"""Whether a policy and an environment belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from polydit.core.errors import CheckpointError, InputError
from polydit.robopolicy.envs import instruction
from polydit.robopolicy.envs.experts import expert_tasks
from polydit.robopolicy.envs.protocol import Env, Observation
from polydit.robopolicy.episode import ACTION, IMAGES, STATE
from polydit.robopolicy.evaluate.choice import PolicyChoice

_FPS_TOLERANCE = 1e-3  # relative; frame rates pass through files as decimal numbers
_SHOWN = 5


def check_tasks(policy: PolicyChoice, env: str, tasks: Sequence[str]) -> None:
    """Refuses tasks that the policy cannot know, without making an environment.

    Raises:
        CheckpointError: It was not trained on the instruction of one; the message names tasks and instructions.
        InputError: It is the expert, and a task has none.
    """
    if policy.baseline == "expert":
        if lacking := [task for task in tasks if task not in expert_tasks(env)]:
            some = ", ".join(expert_tasks(env)) or "tasks of another environment"
            raise InputError(f"no scripted expert of {env} for {_few(lacking)}", expected=some)
    elif policy.baseline is None:
        known = policy.facts["instructions"]
        unknown = [task for task in tasks if instruction(env, task) not in known]
        if unknown:
            asked = _few([f"{task} ({instruction(env, task)!r})" for task in unknown])
            problem = f"the policy {policy.name} was not trained on the instruction of {env} {asked}"
            raise CheckpointError(problem, expected=f"one of {_few([repr(text) for text in known])}")


def check_fit(policy: PolicyChoice, env: Env, observation: Observation) -> None:
    """Refuses a policy whose states, actions, pictures or frame rate are not those of an environment.

    Args:
        policy: What is to act; a baseline fits every environment.
        env: Where.
        observation: One of the environment's own.

    Raises:
        CheckpointError: They differ; the message names the policy, the environment, and both values of all that
            differ.
    """
    if policy.baseline is not None:
        return
    trained, found = _policy_side(policy.facts), _env_side(env, observation)
    differing = [
        f"{name} ({value} in the policy, {found.get(name, 'nothing')} in the environment)"
        for name, value in trained.items()
        if value != found.get(name)
    ]
    fps = float(policy.facts["fps"])
    if fps and abs(fps - env.fps) > _FPS_TOLERANCE * env.fps:
        differing.append(f"frames per second ({fps:g} in the policy, {env.fps:g} in the environment)")
    if differing:
        where = f"the policy {policy.name} in the environment {env.name} {env.task}"
        raise CheckpointError(f"they do not fit: {'; '.join(differing)}", where=where)


def _policy_side(facts: Mapping[str, Any]) -> dict[str, str]:
    sizes = {key: f"{facts['sizes'][key]} numbers" for key in (STATE, ACTION)}
    return sizes | {IMAGES + camera: "pictures" for camera in facts["cameras"]}


def _env_side(env: Env, observation: Observation) -> dict[str, str]:
    sides = {ACTION: f"{len(env.action_low)} numbers"}
    for key, value in observation.items():
        if isinstance(value, np.ndarray):
            sides[key] = "pictures" if key.startswith(IMAGES) else f"{value.size} numbers"
    return sides


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
