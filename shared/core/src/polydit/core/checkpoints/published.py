"""Weights of published checkpoints: a file or a folder; safetensors, or pickle through the allow-list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from polydit.core.checkpoints.safe_pickle import load_pickled
from polydit.core.errors import CheckpointError

__all__ = ["find_weights", "read_weights"]


def find_weights(path: Path, names: Sequence[str], *, kind: str) -> Path:
    """The file itself, or the first of `names` in a folder.

    Args:
        path: A file or a folder.
        names: What the weights of such checkpoints are called.
        kind: Of what system, for the message.

    Raises:
        CheckpointError: The folder has none of them.
    """
    if path.is_file():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(f"no weights of {kind}", where=str(path), expected=" or ".join(names))


def read_weights(
    file: Path, *, kind: str, under: Sequence[str] = (), inert: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The tensors of a file, no code of which runs.

    Args:
        file: Safetensors, or what `torch.save` wrote.
        kind: Of what system, for the message.
        under: Keys that training scripts keep the weights under; the first that is there. A bare state dict has none.
        inert: Names of classes that such scripts save beside the weights (`load_pickled`).

    Raises:
        CheckpointError: The file is damaged, not safe, or holds anything but tensors.
    """
    if file.suffix == ".safetensors":
        try:
            tensors: dict[str, Tensor] = load_file(file)
            return tensors
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"the file is damaged ({error})", where=str(file)) from None
    content: Any = load_pickled(file, inert=inert)
    key = next((key for key in under if isinstance(content, dict) and key in content), None)
    state: Any = content if key is None else content[key]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        where = " or ".join(repr(name) for name in under)
        raise CheckpointError(
            f"not a checkpoint of {kind}",
            where=str(file),
            expected=f"tensors, or tensors under {where}" if under else "tensors",
        )
    return dict(state)
