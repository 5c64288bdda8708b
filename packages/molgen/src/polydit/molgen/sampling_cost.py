"""What sampling costs, from a checkpoint's config files alone: for `--dry-run` and `--batch-size auto`.

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
# Atom slots in a batch beyond which a device gains nothing more; a core of a CPU is busy with 256.
_TOKENS = {"mps": 8192, "cuda": 65536}
_TOKENS_PER_CORE, _TOKENS_CPU = 256, (512, 4096)
_BYTES = 4
_PROCESS_BYTES = 600e6  # torch, diffusers, rdkit and pymatgen themselves
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
        """From `config.json` and the headers of the weights in a component's folder."""
        from polydit.core.checkpoints.folder import component_sizes

        try:
            config: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            sizes = (int(config["width"]), int(config["depth"]), float(config.get("mlp_ratio", 4.0)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError("its config.json is missing or damaged", where=str(folder)) from error
        return cls(*sizes, component_sizes(folder.parent)[folder.name])

    def operations(self, tokens: float, length: float) -> float:
        """Floating-point operations of one pass over `tokens` atom slots in structures of `length` slots."""
        weights = self.depth * (4 + 2 * self.mlp_ratio) * self.width**2
        return tokens * (2 * weights + 4 * length * self.width * self.depth)


@dataclass(frozen=True, slots=True)
class SamplingCost:
    """Cost of a run.

    Args:
        denoiser: Called `num_steps` times.
        autoencoder: Its decoder is called once.
        num_steps: Calls per sample.
        guided: Whether each call does two passes.
    """

    denoiser: NetworkCost
    autoencoder: NetworkCost
    num_steps: int
    guided: bool

    @classmethod
    def read(cls, checkpoint: Path, *, num_steps: int, guidance_scale: float) -> SamplingCost:
        """From a checkpoint folder.

        Raises:
            CheckpointError: A config or weight file is missing or damaged.
        """
        parts = [NetworkCost.read(checkpoint / name) for name in ("denoiser", "autoencoder")]
        return cls(parts[0], parts[1], num_steps, guidance_scale not in (0.0, 1.0))

    @property
    def parameters(self) -> int:
        """Of both networks."""
        return self.denoiser.parameters + self.autoencoder.parameters

    @property
    def bytes_per_token(self) -> int:
        """Memory that grows with the batch, per atom slot."""
        return _BYTES * _COPIES * self.denoiser.width * (2 if self.guided else 1)

    def seconds(self, num_samples: int, mean_atoms: float, device: Device) -> float:
        """Computing time; loading the networks comes on top."""
        tokens = num_samples * mean_atoms
        passes = self.num_steps * (2 if self.guided else 1)
        operations = passes * self.denoiser.operations(tokens, mean_atoms)
        operations += self.autoencoder.operations(tokens, mean_atoms)
        cores = os.cpu_count() or 1
        return operations / _RATE.get(device.type, cores * _RATE_PER_CORE)

    def memory_bytes(self, tokens: int) -> float:
        """Peak memory of the process with batches of so many atom slots."""
        return _PROCESS_BYTES + _BYTES * self.parameters + tokens * self.bytes_per_token

    def tokens_per_batch(self, device: Device) -> int:
        """Atom slots that keep the device busy and fit into half of its free memory: a power of two."""
        if device.type == "cpu":
            fewest, most = _TOKENS_CPU
            return max(fewest, min(most, _power_of_two(_TOKENS_PER_CORE * (os.cpu_count() or 1))))
        room = _TOKENS[device.type]
        if device.free_bytes is not None:
            room = max(64, min(room, int(device.free_bytes / 2 / self.bytes_per_token)))
        return _power_of_two(room)


def _power_of_two(number: int) -> int:
    """The largest one up to `number`, so that a little more or less free memory forms the same batches."""
    return int(2 ** (number.bit_length() - 1))
