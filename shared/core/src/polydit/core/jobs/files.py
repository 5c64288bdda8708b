"""Files that are either whole or absent, names that stay under their folder, and a disk that is full."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from polydit.core.errors import PolyditError

SCRATCH = "scratch"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TEMPORARY = re.compile(r"\.tmp\d+$")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(?<![.])")


class DiskFullError(PolyditError):
    """No room to write: the run stops, and everything that it had committed stays valid."""


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk, the quota or the largest allowed file size is used up."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL


@contextmanager
def naming_write_errors(folder: Path) -> Iterator[None]:
    """Turns an operating system's refusal to write under `folder` into an error that says what to do.

    Raises:
        DiskFullError: The disk, the quota or the largest allowed file size is used up.
        PolyditError: Any other refusal, with the system's own words.
    """
    try:
        yield
    except OSError as error:
        again = "What is finished is kept: run the same command again to go on."
        if is_disk_full(error):
            hint = f"Free some space first. {again}"
            raise DiskFullError("the disk is full", where=str(folder), hint=hint) from error
        raise PolyditError(f"could not write: {error.strerror}", where=str(folder), hint=again) from error


@contextmanager
def atomic_file(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path` that takes its place when the block ends without an error.

    The bytes are on the disk (fsync) before the name changes, so after a kill or a power cut `path` holds
    either its old content or the whole new one.

    Args:
        path: Where the content goes.
        sync: False forces nothing to the disk, which for thousands of small files would take most of the time: a kill
            still leaves whole files only, a power cut may cost their content.
    """
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        with temporary.open("wb") as handle:
            yield handle
            if sync:
                handle.flush()
                os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable; Windows cannot open a folder, and does this by itself."""
    with suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def scratch_folder(run_folder: Path, item_id: str) -> Path:
    """Where a long item keeps what it has so far, so that a run that was killed goes on within it.

    The folder is the item's own from call to call; its run removes it once the item is finished.
    """
    return run_folder / SCRATCH / safe_name(item_id)


def remove_leftovers(run_folder: Path, names: Collection[str]) -> None:
    """Removes the temporary files that a killed run left: those of `names` in the folder, all under items."""
    beside = [path for path in run_folder.iterdir() if _TEMPORARY.sub("", path.name) in names]
    for path in [*beside, *(run_folder / "items").rglob("*")]:
        if _TEMPORARY.search(path.name) and path.is_file():
            path.unlink()


def safe_name(item_id: str) -> str:
    """A file name for an item: its id where that is harmless, else a readable part and a hash.

    Ids come from users (paths, prompts, row names). The name never leaves its folder, holds no separator and
    is at most 100 characters; two ids share a name only if 64 bits of their sha256 agree.
    """
    if _SAFE_NAME.fullmatch(item_id):
        return item_id
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", item_id).strip("-")[:60]
    return f"{readable or 'item'}-{hashlib.sha256(item_id.encode()).hexdigest()[:16]}"
