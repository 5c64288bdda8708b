"""Checkpoint folders: written whole or not at all, with a card that says what is inside."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polydit.core.checkpoints.files import read_header
from polydit.core.errors import InputError
from polydit.core.jobs.files import naming_write_errors

__all__ = ["CARD", "Card", "check_free", "checkpoint_folder", "component_sizes", "read_card"]

CARD = "card.md"


@dataclass(frozen=True, slots=True)
class Card:
    """What a checkpoint's author says about it.

    Attributes:
        fields: The lines ``key: value`` between the two ``---`` at the top; a value that is JSON is read as such.
        text: The rest, as Markdown.
    """

    fields: dict[str, Any]
    text: str


def read_card(folder: Path) -> Card:
    """Reads ``card.md`` of a checkpoint folder; empty if there is none."""
    path = Path(folder) / CARD
    if not path.is_file():
        return Card({}, "")
    text = path.read_text(encoding="utf-8")
    if not text.startswith("---\n"):
        return Card({}, text.strip())
    head, _, body = text.removeprefix("---\n").partition("\n---")
    pairs = (line.partition(":") for line in head.splitlines() if ":" in line)
    return Card({key.strip(): _value(value.strip()) for key, _, value in pairs}, body.strip())


def component_sizes(folder: Path) -> dict[str, int]:
    """Parameters of each network below a checkpoint folder, by the name of its sub-folder, from headers alone."""
    sizes: dict[str, int] = {}
    for file in sorted(Path(folder).glob("*/**/*.safetensors")):  # what lies beside them is no network
        name = file.parent.relative_to(folder).as_posix()
        count = sum(math.prod(entry["shape"]) for entry in read_header(file).values())
        sizes[name] = sizes.get(name, 0) + count
    return sizes


@contextmanager
def checkpoint_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside ``path`` that takes its place when the block ends without an error.

    Args:
        path: The checkpoint folder to make.
        overwrite: Replace a checkpoint that is there.

    Raises:
        InputError: Something is there, and it is not to be replaced or is no checkpoint.
        PolyditError: The place cannot be written to.
    """
    path = Path(path)
    check_free(path, overwrite=overwrite)
    temporary = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        with naming_write_errors(path):
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuses to replace what is not a checkpoint, or what is one without being told to.

    Raises:
        InputError: As the sentence above says.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir() or not any(path.rglob("*.safetensors")):
        raise InputError("there is something that is no checkpoint", where=str(path), expected="a new folder")
    if not overwrite:
        raise InputError(
            "there is a checkpoint already", where=str(path), hint="Use --overwrite to replace it"
        )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
