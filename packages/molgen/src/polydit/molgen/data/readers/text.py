"""Text of untrusted files as lines: sizes are bounded before memory is taken, gzip included."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

from polydit.core.errors import InputError
from polydit.molgen.data.structure import Rejected, Structure

MAX_ATOMS = 100_000  # of one structure
MAX_LINE_BYTES = 2**20
MAX_RECORD_BYTES = 16 * 2**20  # one SDF record, CIF or POSCAR
MAX_EXPANSION = 200  # compressed structure files shrink 3 to 20 fold; a bomb shrinks 1000 fold
FREE_EXPANSION_BYTES = 64 * 2**20  # small files may expand as they like


@runtime_checkable
class ByteStream(Protocol):
    """What is read of a file, plain, packed or inside an archive."""

    def read(self, size: int = -1, /) -> bytes: ...

    def readline(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Text:
    """Lines of one text, read as they are asked for.

    Attributes:
        name: The file as the user knows it, for messages.
        stem: Its name without folder and suffixes; ids of records without a name begin with it.
        lines: Lines with their line ends.
    """

    name: str
    stem: str
    lines: Iterator[str]

    def where(self, row: int) -> str:
        """Name of a record, counted from 1."""
        return f"{self.name}:{row}"

    def all(self) -> str:
        """The whole text.

        Raises:
            InputError: It is longer than one record may be.
        """
        parts, size = [], 0
        for line in self.lines:
            size += len(line)
            if size > MAX_RECORD_BYTES:
                raise InputError(f"longer than {MAX_RECORD_BYTES >> 20} MiB", where=self.name)
            parts.append(line)
        return "".join(parts)


Records = Iterator[Structure | Rejected]
Reader = Callable[[Text], Records]


@contextmanager
def open_text(path: Path) -> Iterator[Text]:
    """Lines of a file, unpacked if its name ends in .gz.

    Raises:
        InputError: The file cannot be opened or is empty.
    """
    try:
        stream = gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115
        with stream as binary:
            lines = bounded_lines(
                binary, str(path), expansion_limit(path.stat().st_size, path.suffix == ".gz")
            )
            first = next(lines, None)
            if first is None:
                raise InputError("the file is empty", where=str(path))
            yield Text(str(path), path.name.split(".")[0], chain([first], lines))
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror or error}", where=str(path)) from error


def expansion_limit(packed_bytes: int, packed: bool) -> int | None:
    """Most bytes that a packed file may become; None for a plain file."""
    return max(FREE_EXPANSION_BYTES, MAX_EXPANSION * packed_bytes) if packed else None


def bounded_lines(binary: ByteStream, name: str, max_bytes: int | None) -> Iterator[str]:
    """Lines of a binary stream; bytes that are not UTF-8 become U+FFFD.

    Raises:
        InputError: A line or the unpacked text is too long, or the packing is damaged.
    """
    total = 0
    while True:
        try:
            line = binary.readline(MAX_LINE_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(f"its compressed data is damaged: {error}", where=name) from error
        if not line:
            return
        total += len(line)
        if max_bytes is not None and total > max_bytes:
            raise InputError(f"it unpacks to more than {MAX_EXPANSION} times its size", where=name)
        if len(line) == MAX_LINE_BYTES:
            raise InputError(f"a line is longer than {MAX_LINE_BYTES >> 20} MiB", where=name)
        yield line.decode("utf-8", errors="replace")


def rejected(source: str, error: Exception | str) -> Rejected:
    """One sentence of what an error says, without where (that is the source)."""
    if isinstance(error, InputError):
        expected = f"; expected {error.expected}" if error.expected else ""
        return Rejected(source, error.problem + expected)
    text = str(error).strip()
    return Rejected(source, text.splitlines()[0][:300] if text else type(error).__name__)


def number(text: str) -> float:
    """A number as structure files write it; Fortran and QM9 write 1.0*^-6 or 1.0D-6 for 1.0e-6."""
    return float(text.replace("*^", "e").replace("D", "e").replace("d", "e"))


def whole_number(text: str) -> int:
    """A number such as "225" or "225.0"; 0 for anything else."""
    digits = text.strip().removesuffix(".0")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else 0


def typed(text: str) -> float | int | str:
    """A number if the text is one, else the text."""
    for convert in (int, number):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
