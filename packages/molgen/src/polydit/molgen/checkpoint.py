"""A checkpoint as the command line sees it: found, checked and described without loading a weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from polydit.core.checkpoints.files import sha256_of
from polydit.core.checkpoints.resolve import resolve_checkpoint
from polydit.core.errors import CheckpointError, InputError
from polydit.molgen.domain import DOMAIN

_INDEX = "model_index.json"
_PIPELINE = "MolgenPipeline"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder.

    Args:
        path: The folder.
        name: What the user calls it: a listed name, a hub address, or the folder's name.
        licence: Of a listed checkpoint; empty if unknown.
        index: The content of its model_index.json.
    """

    path: Path
    name: str
    licence: str
    index: Mapping[str, Any]

    @classmethod
    def find(cls, reference: str | None) -> Checkpoint:
        """From what follows `--checkpoint`; None = the starter.

        Raises:
            CheckpointError: There is none, it is damaged, or of another kind.
        """
        path = resolve_checkpoint(reference, entries=DOMAIN.checkpoints)
        name = reference or DOMAIN.checkpoints[0].name
        if path.is_file():
            hint = f"If it is a published one, run: molgen convert {path} --out FOLDER"
            raise CheckpointError(
                "is a single file", where=str(path), expected="a checkpoint folder", hint=hint
            )
        licences = {entry.name: entry.licence for entry in DOMAIN.checkpoints}
        known = name in licences or name.startswith("hf://")
        return cls(path, name if known else path.resolve().name, licences.get(name, ""), _read_index(path))

    @cached_property
    def sha256(self) -> str:
        """Digest of the weights and configs: of the sorted lines `digest  relative/path`.

        The card, the recipe and what Python leaves in the starter's package do not change what a model makes.
        """
        files = sorted(file for ending in ("json", "safetensors") for file in self.path.rglob(f"*.{ending}"))
        lines = (f"{sha256_of(file)}  {file.relative_to(self.path).as_posix()}\n" for file in files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def num_steps(self) -> int:
        """The number of steps it suggests."""
        return int(self.index["num_steps"])

    @property
    def guidance_scale(self) -> float:
        """The guidance scale it suggests."""
        return float(self.index["guidance_scale"])

    def sizes(self, kind: str) -> dict[str, int]:
        """Structures of its training data by number of atoms; empty if it does not say.

        Raises:
            InputError: It was trained on the other kind only.
        """
        histograms: Mapping[str, dict[str, int]] = self.index.get("size_histograms") or {}
        if histograms and not histograms.get(kind):
            there = " and ".join(f"{name}s" for name, sizes in histograms.items() if sizes)
            raise InputError(f"checkpoint {self.name} makes {there} only", where=f"--kind {kind}")
        return histograms.get(kind, {})

    def provenance(self) -> dict[str, str]:
        """What a run records of it."""
        return {"name": self.name, "path": str(self.path), "sha256": self.sha256, "licence": self.licence}


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / _INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError("this is no checkpoint folder", where=str(folder), expected=_INDEX) from None
    except (OSError, ValueError) as error:
        raise CheckpointError("cannot be read", where=str(path)) from error
    if not isinstance(index, dict) or index.get("_class_name") != _PIPELINE:
        raise CheckpointError("is a checkpoint of another program", where=str(folder), expected=_PIPELINE)
    if not {"num_steps", "guidance_scale"} <= index.keys():
        raise CheckpointError("lacks num_steps or guidance_scale", where=str(path))
    return index
