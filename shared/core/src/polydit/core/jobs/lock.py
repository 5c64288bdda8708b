"""One run per folder: a lock that the operating system releases when its owner dies, however it dies."""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from pathlib import Path

from polydit.core.errors import InputError

_log = logging.getLogger(__name__)


class FolderLock:
    """Holds `folder/.lock` from construction until `release`.

    Raises:
        InputError: Another process holds it; the message names its process id and host.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / ".lock"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(self._descriptor)
        except BlockingIOError:
            os.close(self._descriptor)
            raise InputError(
                f"another run is working in this folder ({self._owner()})",
                where=str(folder),
                hint="Wait until it ends, or choose another --out.",
            ) from None
        except OSError as error:
            _log.warning("%s: this file system has no locks (%s); start only one run here", folder, error)
        owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, owner.encode())

    def _owner(self) -> str:
        try:
            owner = json.loads(self._path.read_text())
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError):
            return "it has just started"

    def release(self) -> None:
        """Gives the folder free. The file stays: removing it would race with a run that is opening it."""
        os.close(self._descriptor)


def _take(descriptor: int) -> None:
    """Locks without waiting; raises BlockingIOError when somebody else has it."""
    if sys.platform == "win32":
        import msvcrt

        # Windows forbids reading a locked byte, and the owner's name at the start must stay readable.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError from error
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
