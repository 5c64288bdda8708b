"""A policy's folder as the command line sees it: found, checked and described without loading a weight."""

from __future__ import annotations

import json
from typing import Any

from polydit.core.checkpoints import checkpoint
from polydit.core.checkpoints.files import read_header
from polydit.core.errors import CheckpointError
from polydit.robopolicy.domain import DOMAIN
from polydit.robopolicy.episode import ACTION, STATE

_SHOWN = ("model", "robot_type", "fps", "cameras", "image_size", "execute")


class Checkpoint(checkpoint.Checkpoint):
    """A folder that `RobotPolicy.save_pretrained` wrote; `find` raises CheckpointError for anything else."""

    domain = DOMAIN
    program = "RobotPolicy"
    required = frozenset(_SHOWN) | {"num_steps"}

    def facts(self) -> dict[str, Any]:
        """Model, robot, sizes, and the instructions that it knows."""
        facts = {key: self.index[key] for key in _SHOWN}
        if not facts["cameras"]:
            del facts["image_size"]  # a state policy sees no picture
        if self.index["num_steps"]:  # 0 = the model's own
            facts["num_steps"] = self.index["num_steps"]
        return {**facts, "sizes": self._sizes(), "instructions": self._instructions()}

    def _sizes(self) -> dict[str, int]:
        header = read_header(self.path / "normalizer.safetensors")
        try:
            return {key: int(header[f"{key}.mean"]["shape"][0]) for key in (STATE, ACTION)}
        except (LookupError, TypeError, ValueError):
            raise CheckpointError("the normalisation cannot be read", where=str(self.path)) from None

    def _instructions(self) -> list[str]:
        path = self.path / "instructions.json"
        try:
            return [str(text) for text in json.loads(path.read_text("utf-8"))["instructions"]]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise CheckpointError(f"the instructions cannot be read ({error})", where=str(path)) from None


class NetworkCheckpoint(checkpoint.Checkpoint):
    """A published network in our layout that has met no robot yet: what `robopolicy convert` makes without data."""

    domain = DOMAIN
    program = "PublishedNetwork"
    required = frozenset({"model"})

    def facts(self) -> dict[str, Any]:
        """The model, and how it becomes a policy."""
        return {"model": self.index["model"], "next": "robopolicy convert with --data and --language"}


class AnyCheckpoint:
    """Either of them, for `info`."""

    @staticmethod
    def find(reference: str | None) -> checkpoint.Checkpoint:
        """As that of the class that fits."""
        try:
            return NetworkCheckpoint.find(reference)
        except CheckpointError:
            return Checkpoint.find(reference)
