"""Where the training of a router stands, in memory and in a file.

Shapes: s steps of a run but the first, m modules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file, naming_write_errors

_LARGEST = 64 << 20  # bytes of a file: some ten times a thousand steps of the largest published transformers
_ITERATIONS, _SETTINGS = "iterations", "settings"


@dataclass(frozen=True, kw_only=True, eq=False)
class RouterState:
    """After a whole number of trajectories.

    Args:
        iterations: Trajectories so far.
        logits: Of the scores.
        mean: Adam's mean of their gradients.
        square: Adam's mean of the gradients' squares.
        weights: λ of each step, as last found.
    """

    iterations: int
    logits: Float[Tensor, "s m"]
    mean: Float[Tensor, "s m"]
    square: Float[Tensor, "s m"]
    weights: Float[Tensor, " s"]

    def write(self, path: Path, settings: Mapping[str, str]) -> None:
        """Into a file, whole or not at all.

        Args:
            path: The file.
            settings: What the training is of; `read` refuses others.

        Raises:
            PolyditError: The system refuses to write there.
        """
        about = {_ITERATIONS: str(self.iterations), _SETTINGS: json.dumps(dict(settings))}
        tensors = {name: getattr(self, name).contiguous() for name in _TENSORS}
        with naming_write_errors(path.parent), atomic_file(path) as handle:
            handle.write(save(tensors, metadata=about))

    @classmethod
    def read(cls, path: Path, settings: Mapping[str, str]) -> RouterState:
        """From a file that `write` wrote.

        Raises:
            InputError: It is too large, damaged, or of a training with other settings, which are named.
        """
        if path.stat().st_size > _LARGEST:
            raise InputError("the file is too large", where=str(path), expected=f"at most {_LARGEST} bytes")
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in _TENSORS}
            known, iterations = json.loads(about[_SETTINGS]), int(about[_ITERATIONS])
            before = {key: known.get(key) for key in settings}
        except (OSError, LookupError, AttributeError, TypeError, ValueError, SafetensorError) as error:
            problem = f"the state of the training cannot be read ({error})"
            raise InputError(problem, where=str(path), hint="Discard it with --overwrite") from error
        if other := [
            f"{key} ({before[key]} before, {now} now)" for key, now in settings.items() if before[key] != now
        ]:
            raise InputError(
                f"the training there has other settings: {', '.join(other)}",
                where=str(path),
                hint="Repeat them to go on, choose another --out, or discard it with --overwrite",
            )
        _check(tensors, str(path))
        return cls(iterations=iterations, **tensors)


def _check(tensors: Mapping[str, Tensor], where: str) -> None:
    """Damaged numbers would only show as a table that is worth nothing."""
    logits = tensors["logits"]
    whole = logits.ndim == 2 and tensors["mean"].shape == tensors["square"].shape == logits.shape
    if not whole or tensors["weights"].shape != logits.shape[:1]:
        raise InputError(
            "its tensors do not fit one another", where=where, hint="Discard it with --overwrite"
        )
    if not all(value.is_floating_point() and bool(value.isfinite().all()) for value in tensors.values()):
        raise InputError("it holds what is no number", where=where, hint="Discard it with --overwrite")


_TENSORS = tuple(field.name for field in fields(RouterState) if field.name != _ITERATIONS)
