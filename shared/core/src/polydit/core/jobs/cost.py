"""What a transformer costs, from a checkpoint's config files alone: for `--dry-run` and `--batch-size auto`.

A model of the arithmetic, not a measurement: products of matrices at a rate that such devices usually reach.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polydit.core.errors import CheckpointError

if TYPE_CHECKING:
    from polydit.core.jobs.device import Device

# Floating-point operations per second that small transformers usually reach in float32: per core, per device.
_RATE_PER_CORE = 60e9
_RATE = {"cuda": 8e12, "mps": 1.5e12}
# Tokens in a batch beyond which a device gains nothing more; a core of a CPU is busy with 256.
_TOKENS = {"mps": 8192, "cuda": 65536}
_TOKENS_PER_CORE, _TOKENS_CPU = 256, (512, 4096)
_BYTES = 4
_PROCESS_BYTES = 600e6  # torch, diffusers and the libraries of a domain themselves
# Copies of a token's width alive at the peak of a block: residual, modulated, q k v, feed-forward.
_COPIES = 24


@dataclass(frozen=True, slots=True)
class NetworkCost:
    """A transformer's width, depth and feed-forward ratio, and all its parameters."""

    width: int
    depth: int
    mlp_ratio: float
    parameters: int

    @classmethod
    def read(cls, folder: Path) -> NetworkCost:
        """From `config.json` and the headers of the weights in a component's folder.

        Raises:
            CheckpointError: A config or weight file is missing or damaged.
        """
        from polydit.core.checkpoints.folder import component_sizes

        config = read_config(folder)
        try:
            sizes = (int(config["width"]), int(config["depth"]), float(config.get("mlp_ratio", 4.0)))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError("its config.json is missing or damaged", where=str(folder)) from error
        parameters = component_sizes(folder.parent).get(folder.name)
        if parameters is None:
            raise CheckpointError("it has no weights", where=str(folder))
        return cls(*sizes, parameters)

    def operations(self, tokens: int | float, length: int | float) -> float:
        """Floating-point operations of one pass over `tokens` tokens that attend to `length` tokens each."""
        weights = self.depth * (4 + 2 * self.mlp_ratio) * self.width**2
        return tokens * (2 * weights + 4 * length * self.width * self.depth)

    @property
    def bytes_per_token(self) -> int:
        """Memory that grows with the batch, per token of one pass."""
        return _BYTES * _COPIES * self.width


def read_config(folder: Path) -> Mapping[str, Any]:
    """The `config.json` of a component.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    try:
        config: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("no table")
    except (OSError, ValueError) as error:
        raise CheckpointError("its config.json is missing or damaged", where=str(folder)) from error
    return config


def computing_seconds(operations: float, device: Device) -> float:
    """Computing time of so many floating-point operations."""
    return operations / _RATE.get(device.type, (os.cpu_count() or 1) * _RATE_PER_CORE)


def memory_bytes(parameters: int, tokens: int, bytes_per_token: int) -> float:
    """Peak memory of the process with batches of so many tokens."""
    return _PROCESS_BYTES + _BYTES * parameters + tokens * bytes_per_token


def tokens_per_batch(bytes_per_token: int, device: Device) -> int:
    """Tokens that keep the device busy and fit into half of its free memory: a power of two."""
    if device.type == "cpu":
        fewest, most = _TOKENS_CPU
        return max(fewest, min(most, _power_of_two(_TOKENS_PER_CORE * (os.cpu_count() or 1))))
    room = _TOKENS[device.type]
    if device.free_bytes is not None:
        room = max(64, min(room, int(device.free_bytes / 2 / bytes_per_token)))
    return _power_of_two(room)


def _power_of_two(number: int) -> int:
    """The largest one up to `number`, so that a little more or less free memory forms the same batches."""
    return int(2 ** (number.bit_length() - 1))
