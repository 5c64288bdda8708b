"""manifest.jsonl: one line per finished or failed item, appended, never rewritten."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

Status = Literal["ok", "failed"]


class Output(TypedDict):
    """One file of a run: its path relative to the run folder, or as given for an input."""

    path: str
    sha256: str
    bytes: int


class ItemError(TypedDict):
    """Why an item failed."""

    type: str
    message: str


class ManifestRecord(TypedDict):
    """One line of the manifest."""

    id: str
    index: int  # place of the item in the run, from 0
    status: Status
    seed: int
    attempt: int  # 1, or more after --retry-failed
    inputs: list[Output]
    outputs: list[Output]
    measures: dict[str, Any]
    seconds: float  # the batch's wall time divided by its items
    peak_memory_mb: float  # of the process, or of the accelerator if one is in use
    error: NotRequired[ItemError]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """What a finished item leaves.

    Args:
        id: The item's name, unique in the run.
        index: Its place in the run, from 0.
        seed: The seed that made it.
        files: Ending of the file name (".sdf", "-mask.png", "/frame-0001.png") to content; the name before it
            comes from the id. A path stands for the content of that file, which is moved: it has to be on the disk of
            the run folder, best in the item's `scratch_folder`.
        measures: Figures for the report; not-a-number becomes null.
        inputs: The files that it was made from.
        seconds: Wall time spent on it; the item loop fills it in.
        peak_memory_mb: Peak memory while it was made; the item loop fills it in.
    """

    id: str
    index: int
    seed: int
    files: Mapping[str, bytes | Path]
    measures: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Output] = ()
    seconds: float = 0.0
    peak_memory_mb: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFailure:
    """Why an item has no result; the fields are those of `ItemResult`.

    Args:
        error: The kind of error, one word.
        message: What was wrong, as a sentence for the user.
    """

    id: str
    index: int
    seed: int
    error: str
    message: str
    measures: Mapping[str, Any] = field(default_factory=dict)
    inputs: Sequence[Output] = ()
    seconds: float = 0.0
    peak_memory_mb: float = 0.0


class _Entry(NamedTuple):
    place: int
    offset: int
    status: Status
    attempt: int


class Manifest:
    """The lines of a manifest, held as offsets: some 300 bytes of memory per item whatever the lines hold.

    The last line of an id counts. A line that does not parse is as if it were absent: its item is made again.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[str, _Entry] = {}
        self._end = 0  # offset after the last whole line
        if path.exists():
            self._scan()

    def _scan(self) -> None:
        with self.path.open("rb") as handle:
            for line in handle:
                if not line.endswith(b"\n"):
                    break  # torn by a kill, or still being written
                self._remember(line, self._end)
                self._end += len(line)

    def _remember(self, line: bytes, offset: int) -> None:
        try:
            record = json.loads(line)
            entry = _Entry(record["index"], offset, record["status"], record["attempt"])
            self._entries[record["id"]] = entry
        except (ValueError, KeyError, TypeError):
            return

    def make_ready(self) -> None:
        """Makes the file if it is absent, and cuts off what follows the last whole line of it."""
        with self.path.open("ab") as handle:
            handle.truncate(self._end)

    def append(self, records: Sequence[ManifestRecord]) -> None:
        """Adds lines with one write, on the disk when it returns.

        Raises:
            OSError: The disk is full or refuses; no part of the lines is left.
        """
        lines = [_line(record) for record in records]
        content = b"".join(lines)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _write_whole(descriptor, content)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, self._end)
            raise
        finally:
            os.close(descriptor)
        for line in lines:
            self._remember(line, self._end)
            self._end += len(line)

    def status(self, item_id: str) -> Status | None:
        """How the item ended, or None if it has no line."""
        entry = self._entries.get(item_id)
        return entry.status if entry else None

    def attempts(self, item_id: str) -> int:
        """How often the item has been tried."""
        entry = self._entries.get(item_id)
        return entry.attempt if entry else 0

    def count(self, status: Status) -> int:
        """How many items ended so."""
        return sum(entry.status == status for entry in self._entries.values())

    def read(self, item_id: str) -> ManifestRecord:
        """The item's line. Raises KeyError if it has none."""
        return next(self._read([self._entries[item_id]]))

    def ids(self, status: Status | None = None) -> list[str]:
        """The items' ids in the order of their index."""
        chosen = ((e.place, i) for i, e in self._entries.items() if status in (None, e.status))
        return [item_id for _, item_id in sorted(chosen)]

    def records(self, status: Status | None = None) -> Iterator[ManifestRecord]:
        """The lines in the order of their index, one at a time; all, or those with `status`."""
        return self._read(sorted(e for e in self._entries.values() if status in (None, e.status)))

    def _read(self, entries: Sequence[_Entry]) -> Iterator[ManifestRecord]:
        if not entries:
            return
        with self.path.open("rb") as handle:
            for entry in entries:
                handle.seek(entry.offset)
                record: ManifestRecord = json.loads(handle.readline())
                yield record


def _line(record: ManifestRecord) -> bytes:
    return (json.dumps(plain(record), ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write_whole(descriptor: int, content: bytes) -> None:
    """Writes everything; the first call nearly always does, and a full disk makes the second one raise."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: paths as text, numpy's numbers as Python's, not-a-number as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if hasattr(value, "tolist"):  # numpy and torch, without importing either
        return plain(value.tolist())
    return str(value)
