"""Simulated environments behind one small protocol: MetaWorld, Fetch and Push-T.

    >>> from polydit.robopolicy.envs import make_env
    >>> with make_env("metaworld", "drawer-open-v3") as env:
    ...     observation = env.reset(seed=100_000)

Simulators are imported when an environment is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from polydit.robopolicy.envs.instructions import environments, instruction, tasks

if TYPE_CHECKING:
    from polydit.robopolicy.envs.protocol import Env
    from polydit.robopolicy.envs.rendering import RenderConfig

__all__ = ["environments", "instruction", "make_env", "tasks"]

_CLASSES = {"metaworld": "MetaWorld", "fetch": "Fetch", "pusht": "PushT"}


def make_env(name: str, task: str, *, seed: int | None = None, render: RenderConfig | None = None) -> Env:
    """One task in a simulator. Close it, or use it as a context manager.

    Args:
        name: One of `environments()`.
        task: One of `tasks(name)`.
        seed: Of the first episode that is begun without one; those after it count up. None = 0.
        render: Which pictures it makes; None = none, and then nothing of graphics is needed.

    Raises:
        InputError: There is no such environment, task or camera.
        MissingExtraError: The simulator is not installed.
        PolyditError: Pictures cannot be made here; the hint names the package that lacks.
    """
    instruction(name, task)
    kind = getattr(import_module(f"{__name__}.{name}"), _CLASSES[name])
    env: Env = kind(task, seed=seed, render=render)
    return env
