"""The environments' tasks, and what each asks for in words. Nothing of a simulator is imported for them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from polydit.core.errors import InputError


@cache
def _table() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads((files(__package__) / "instructions.toml").read_text("utf-8"))


def environments() -> tuple[str, ...]:
    """Names of all environments."""
    return tuple(_table())


def tasks(name: str) -> tuple[str, ...]:
    """Names of an environment's tasks, whether it is installed or not.

    Raises:
        InputError: There is no such environment.
    """
    if name not in _table():
        raise InputError(f"there is no environment {name!r}", expected=" or ".join(environments()))
    return tuple(_table()[name])


def instruction(name: str, task: str) -> str:
    """A task in words.

    Raises:
        InputError: There is no such environment or task.
    """
    known = tasks(name)
    if task not in known:
        raise InputError(f"{name} has no task {task!r}", expected=_nearest(task, known))
    return _table()[name][task]


def _nearest(task: str, known: tuple[str, ...]) -> str:
    """A few names like the one that was meant, or all if they are few."""
    from difflib import get_close_matches

    few = len(known) <= 5
    return " or ".join(known if few else get_close_matches(task, known, n=5, cutoff=0.4) or known[:5])
