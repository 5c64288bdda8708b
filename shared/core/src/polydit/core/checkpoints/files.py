"""Weight files on disk without loading them: their digest, and whether they are whole. Imports no torch.

A safetensors file is 8 bytes of length, a JSON header and the tensors' bytes without gaps, so its header tells whether
the file is whole without reading a tensor.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from polydit.core.errors import CheckpointError

__all__ = ["check_weights", "read_header", "sha256_of"]

_HEADER_LIMIT = 100 << 20  # as safetensors itself


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder: of the sorted lines ``digest  relative/path`` of all its files."""
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        lines = "".join(f"{sha256_of(file)}  {file.relative_to(path).as_posix()}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: name → ``{"dtype", "shape", "data_offsets"}``, without the metadata entry.

    Raises:
        CheckpointError: The file is missing, truncated, longer than it says, or no safetensors file.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
                raise CheckpointError(
                    "truncated, or not a safetensors file", where=str(path), hint="Get it again"
                )
            header: dict[str, Any] = json.loads(file.read(length))
        header.pop("__metadata__", None)
        expected = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise CheckpointError("not a safetensors file", where=str(path)) from None
    if size != expected:
        problem = "the file is truncated" if size < expected else "the file is damaged"
        raise CheckpointError(
            f"{problem}: {size} bytes", where=str(path), expected=f"{expected} bytes", hint="Get it again"
        )
    return header


def check_weights(folder: Path) -> None:
    """Checks that every safetensors file below a folder is whole; reads headers only.

    Raises:
        CheckpointError: As :func:`read_header`, or there is no safetensors file.
    """
    files = sorted(Path(folder).rglob("*.safetensors"))
    if not files:
        raise CheckpointError("no weights in this folder", where=str(folder), expected="*.safetensors files")
    for file in files:
        read_header(file)
