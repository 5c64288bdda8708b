"""What a command says: results on stdout, everything else on stderr."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import click

_SECONDS_BETWEEN_LINES = 15.0  # without a terminal, progress is a plain line now and then


class Progress(Protocol):
    """A bar, a line now and then, or silence."""

    def update(self, n: int = 1) -> object: ...

    def set_postfix_str(self, s: str = "") -> object: ...


@dataclass(frozen=True, slots=True)
class Output:
    """The two streams of one command.

    Args:
        json: stdout carries one JSON object per line.
        quiet: no notes, no progress.
        verbose: 0, 1 (details) or 2 (all of them).
    """

    json: bool = False
    quiet: bool = False
    verbose: int = 0

    def item(self, record: Mapping[str, Any]) -> None:
        """One finished or failed item: a line with ``--json``, else nothing (the manifest has it)."""
        if self.json:
            click.echo(to_json(record))

    def summary(self, record: Mapping[str, Any], *lines: str) -> None:
        """The end of the command: ``lines`` for a person, the last says where the results are."""
        if self.json:
            click.echo(to_json({"event": "summary", **record}))
        else:
            for line in lines or [f"{key}: {value}" for key, value in record.items()]:
                click.echo(line)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows with the same keys: aligned columns for a person, one object per row with ``--json``."""
        if self.json:
            for row in rows:
                click.echo(to_json(row))
        elif rows:
            cells = [
                [str(key) for key in rows[0]],
                *([_cell(value) for value in row.values()] for row in rows),
            ]
            widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
            for line in cells:
                click.echo(
                    "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                )

    def text(self, text: str) -> None:
        """A result for a person; silent with ``--json``."""
        if not self.json:
            click.echo(text)

    def note(self, text: str) -> None:
        """Something worth knowing, on stderr."""
        if not self.quiet:
            click.echo(text, err=True)

    def detail(self, text: str) -> None:
        """Something for ``-v``, on stderr."""
        if self.verbose and not self.quiet:
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """Something the user must see even with ``--quiet``."""
        click.echo(f"Warning: {text}", err=True)

    @contextmanager
    def progress(
        self, total: int, *, what: str = "", unit: str = "item", initial: int = 0
    ) -> Iterator[Progress]:
        """A bar on stderr; plain lines without a terminal; nothing with ``--quiet`` or ``--json``."""
        if self.quiet or self.json:
            yield _Silent()
        elif sys.stderr.isatty():
            from tqdm import tqdm

            with tqdm(total=total, desc=what or None, unit=unit, initial=initial, dynamic_ncols=True) as bar:
                yield bar
        else:
            yield _Lines(total, what or unit, initial)


class _Silent:
    def update(self, n: int = 1) -> None: ...

    def set_postfix_str(self, s: str = "") -> None: ...


class _Lines:
    """Progress for a log file: one line every few seconds, and the last one."""

    def __init__(self, total: int, what: str, done: int) -> None:
        self.total, self.what, self.done = total, what, done
        self.suffix, self.spoke = "", time.monotonic()

    def update(self, n: int = 1) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.spoke >= _SECONDS_BETWEEN_LINES or self.done == self.total:
            self.spoke = now
            click.echo(f"{self.what}: {self.done}/{self.total} {self.suffix}".rstrip(), err=True)

    def set_postfix_str(self, s: str = "") -> None:
        self.suffix = s


def to_json(record: Mapping[str, Any]) -> str:
    """One line of strict JSON: not-a-number becomes null, a path its text."""
    return json_module.dumps(_finite(record), ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
