"""From published state-dict keys to ours and back, by templates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from polydit.core.errors import CheckpointError

__all__ = ["KeyMap", "below", "count_blocks"]

V = TypeVar("V")
Rule = tuple[re.Pattern[str], str]
_FIELDS = {"n": r"\d+", "m": r"\d+", "p": "weight|bias"}


class KeyMap:
    """Pairs of key templates that say how keys are called elsewhere and here.

    In a template ``{n}`` and ``{m}`` stand for numbers and ``{p}`` for ``weight`` or ``bias``::

        KeyMap({"blocks.{n}.attn.proj.{p}": "blocks.{n}.attn.out.{p}"})

    Args:
        pairs: Published template → our template, one to one.
        dropped: Published templates of entries that we do not keep, such as fixed tables. A pair goes before.
    """

    def __init__(self, pairs: Mapping[str, str], dropped: Sequence[str] = ()) -> None:
        self._to_ours = [(_pattern(theirs), ours) for theirs, ours in pairs.items()]
        self._to_theirs = [(_pattern(ours), theirs) for theirs, ours in pairs.items()]
        self._dropped = [_pattern(template) for template in dropped]

    def to_ours(self, state: Mapping[str, V], *, source: str = "the checkpoint") -> dict[str, V]:
        """Renames published keys to ours.

        Raises:
            CheckpointError: A key fits no template: the checkpoint is of another kind.
        """
        return _renamed(state, self._to_ours, self._dropped, source)

    def to_theirs(self, state: Mapping[str, V], *, source: str = "the checkpoint") -> dict[str, V]:
        """Renames our keys to the published ones; what was dropped does not come back.

        Raises:
            CheckpointError: A key fits no template.
        """
        return _renamed(state, self._to_theirs, [], source)


def below(prefix: str, state: Mapping[str, V]) -> dict[str, V]:
    """The entries whose keys start with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def count_blocks(state: Mapping[str, V], prefix: str = "blocks.") -> int:
    """How many different numbers follow ``prefix``. A gap is not filled: no file makes us build a million blocks."""
    numbers = {key.split(".", 1)[0] for key in below(prefix, state)}
    return sum(number.isdigit() for number in numbers)


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)  # text, field, text, field, ..., text
    return re.compile(
        "".join(f"(?P<{part}>{_FIELDS[part]})" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    )


def _renamed(
    state: Mapping[str, V], rules: Sequence[Rule], dropped: Sequence[re.Pattern[str]], source: str
) -> dict[str, V]:
    renamed: dict[str, V] = {}
    unknown = []
    for key, value in state.items():
        name = _translate(key, rules)
        if name is not None:
            renamed[name] = value
        elif not any(pattern.fullmatch(key) for pattern in dropped):
            unknown.append(key)
    if unknown:
        more = f" and {len(unknown) - 4} more" if len(unknown) > 4 else ""
        raise CheckpointError(
            f"unknown entries {', '.join(unknown[:4])}{more}: this checkpoint is of another kind",
            where=source,
        )
    return renamed


def _translate(key: str, rules: Sequence[Rule]) -> str | None:
    for pattern, template in rules:
        if match := pattern.fullmatch(key):
            return template.format(**match.groupdict())
    return None
