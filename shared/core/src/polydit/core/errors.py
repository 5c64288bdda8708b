"""Errors that a person can act on. No heavy imports: every command line loads this module."""

from __future__ import annotations

from typing import Any


class PolyditError(Exception):
    """Something a user can mend: what was wrong, where, what was expected, what to do.

    Args:
        problem: What was wrong, as one sentence without a full stop.
        where: File, row, field or option that it concerns.
        expected: What would have been right.
        hint: What to do now, best as a command.
    """

    exit_code = 1  # the run failed

    def __init__(
        self, problem: str, *, where: str | None = None, expected: str | None = None, hint: str | None = None
    ) -> None:
        self.problem, self.where, self.expected, self.hint = problem, where, expected, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.problem}" if self.where else self.problem
        if self.expected:
            text += f"; expected {self.expected}"
        if self.hint:
            text += f". {self.hint}"
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        """Whole through a pickle: an error of a worker process is told by the process that started it."""
        return _rebuild, (type(self), self.__dict__)


def _rebuild(kind: type[PolyditError], fields: dict[str, Any]) -> PolyditError:
    error = kind.__new__(kind)
    error.__dict__.update(fields)
    error.args = (str(error),)
    return error


class InputError(PolyditError):
    """A wrong option, an unreadable input or a checkpoint that does not fit: exit code 2."""

    exit_code = 2


class CheckpointError(InputError):
    """A checkpoint that is missing, truncated, of another kind, or not safe to read."""


class MissingExtraError(PolyditError):
    """An optional dependency is not installed; the hint is the command that installs it."""

    def __init__(self, package: str, extra: str, *, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}", hint=f'Install it with: pip install "{extra}"'
        )
