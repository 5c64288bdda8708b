"""Checkpoints of a training run: written aside and renamed, so a kill never leaves half of one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from polydit.core.errors import CheckpointError
from polydit.core.jobs.files import atomic_file, naming_write_errors

_NAME = re.compile(r"step-(\d{8})\.pt$")


def saved_steps(folder: Path) -> list[tuple[int, Path]]:
    """All whole checkpoints in a folder, oldest first."""
    found = ((_NAME.search(p.name), p) for p in folder.glob("step-*.pt"))
    return sorted((int(m.group(1)), p) for m, p in found if m)


def save_state(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write one checkpoint and drop the oldest beyond `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    with naming_write_errors(folder), atomic_file(path) as file:
        torch.save(state, file)
    for _, old in saved_steps(folder)[:-keep]:
        old.unlink()
    for torn in folder.glob("*.tmp*"):
        torn.unlink()
    return path


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint, or None when there is none. Tensors and plain values only, never code."""
    steps = saved_steps(folder)
    if not steps:
        return None
    path = steps[-1][1]
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(
            f"the training checkpoint cannot be read ({error})",
            where=str(path),
            hint="Delete this file to go on from the one before it",
        ) from error
    return state
