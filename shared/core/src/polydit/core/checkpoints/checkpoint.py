"""A checkpoint as a command line sees it: found, checked and described without loading a weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from polydit.core.checkpoints.files import sha256_of
from polydit.core.checkpoints.folder import component_sizes, read_card
from polydit.core.checkpoints.resolve import resolve_checkpoint
from polydit.core.cli.domains import Domain
from polydit.core.errors import CheckpointError

__all__ = ["INDEX", "Checkpoint", "read_index"]

INDEX = "model_index.json"
Found = TypeVar("Found", bound="Checkpoint")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder. A domain derives from this class and sets the three class variables.

    Args:
        path: The folder.
        name: What the user calls it: a listed name, a hub address, or the folder's name.
        licence: Of a listed checkpoint; empty if unknown.
        index: The content of its model_index.json.
    """

    domain: ClassVar[Domain]
    program: ClassVar[str | tuple[str, ...]]  # the class that its index must name, or those that it may
    required: ClassVar[frozenset[str]] = frozenset()  # what its index must hold besides

    path: Path
    name: str
    licence: str
    index: Mapping[str, Any]

    @classmethod
    def find(cls: type[Found], reference: str | None) -> Found:
        """From what follows `--checkpoint`; None = the domain's first.

        Raises:
            CheckpointError: There is none, it is damaged, or of another kind.
        """
        entries = cls.domain.checkpoints
        path = resolve_checkpoint(reference, entries=entries)
        if path.is_file():
            command = f"{cls.domain.command} convert {path} --out FOLDER"
            hint = f"If it is a published one, run: {command}"
            raise CheckpointError(
                "is a single file", where=str(path), expected="a checkpoint folder", hint=hint
            )
        name = reference or entries[0].name
        licences = {entry.name: entry.licence for entry in entries}
        known = name in licences or name.startswith("hf://")
        index = read_index(path, program=cls.program, required=cls.required)
        return cls(path, name if known else path.resolve().name, licences.get(name, ""), index)

    @cached_property
    def sha256(self) -> str:
        """Digest of the weights and configs: of the sorted lines `digest  relative/path`.

        The card, the recipe and what Python leaves in the starter's package do not change what a model makes.
        """
        files = sorted(file for ending in ("json", "safetensors") for file in self.path.rglob(f"*.{ending}"))
        lines = (f"{sha256_of(file)}  {file.relative_to(self.path).as_posix()}\n" for file in files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def provenance(self) -> dict[str, str]:
        """What a run records of it."""
        return {"name": self.name, "path": str(self.path), "sha256": self.sha256, "licence": self.licence}

    def facts(self) -> dict[str, Any]:
        """What the domain's `info` shows besides, from the index."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Everything that headers, index and card tell; the card's text under "card"."""
        card = read_card(self.path)
        limits = next((entry.limits for entry in self.domain.checkpoints if entry.name == self.name), "")
        return {
            "name": self.name,
            "path": str(self.path),
            "sha256": self.sha256,
            "bytes": sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file()),
            "parameters": component_sizes(self.path),
            "licence": self.licence,
            **self.facts(),
            "limits": limits,
            **card.fields,
            "card": card.text,
        }


def read_index(
    folder: Path, *, program: str | tuple[str, ...], required: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The content of a folder's model_index.json.

    Args:
        folder: Checkpoint folder.
        program: The class that the index must name, or those that it may.
        required: Further keys that it must hold.

    Raises:
        CheckpointError: It is missing, unreadable, of another program, or lacks a key.
    """
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError("this is no checkpoint folder", where=str(folder), expected=INDEX) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot be read ({error})", where=str(path)) from error
    found = index.get("_class_name") if isinstance(index, dict) else None
    programs = (program,) if isinstance(program, str) else program
    if found not in programs:
        expected = " or ".join(programs)
        raise CheckpointError(
            f"the checkpoint is of another kind: {found}", where=str(folder), expected=expected
        )
    if missing := sorted(required - index.keys()):
        raise CheckpointError(f"lacks {' and '.join(missing)}", where=str(path))
    return dict(index)
