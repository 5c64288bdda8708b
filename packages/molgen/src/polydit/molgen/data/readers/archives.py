"""Zip and tar archives of structure files, read in order of their names (zip) or as they come (tar)."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from polydit.core.errors import InputError
from polydit.molgen.data.readers.text import (
    MAX_RECORD_BYTES,
    Reader,
    Records,
    Text,
    bounded_lines,
    expansion_limit,
    rejected,
)

Find = Callable[[str], Reader | None]


def read_zip(path: Path, find: Find) -> Records:
    """Structures of all members whose names `find` knows.

    Raises:
        InputError: The file is no zip.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = sorted(
                (m for m in archive.infolist() if not m.is_dir()), key=lambda member: member.filename
            )
            for member in members:
                reader = find(member.filename)
                if reader is None:
                    continue
                limit = expansion_limit(member.compress_size, packed=True)
                yield from _read_member(partial(archive.open, member), path, member.filename, reader, limit)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"it is no readable zip: {error}", where=str(path)) from error


def read_tar(path: Path, find: Find) -> Records:
    """Structures of all members whose names `find` knows, packed or not, in one pass.

    Raises:
        InputError: The file is no tar, or it is cut short.
    """
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                reader = find(member.name) if member.isfile() else None
                if reader is None:
                    continue
                if member.size > MAX_RECORD_BYTES:
                    yield rejected(f"{path}:{member.name}", f"longer than {MAX_RECORD_BYTES >> 20} MiB")
                    continue
                yield from _read_member(partial(archive.extractfile, member), path, member.name, reader, None)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"it is no readable tar: {error}", where=str(path)) from error


def _read_member(
    open_member: Callable[[], Any], path: Path, name: str, reader: Reader, limit: int | None
) -> Records:
    """A member's structures; a broken member fails alone."""
    where = f"{path}:{name}"
    try:
        with open_member() as stream:
            yield from reader(
                Text(where, PurePosixPath(name).name.split(".")[0], bounded_lines(stream, where, limit))
            )
    except (
        InputError,
        zipfile.BadZipFile,
        RuntimeError,
        NotImplementedError,
    ) as error:  # damaged, or encrypted
        yield rejected(where, error)
