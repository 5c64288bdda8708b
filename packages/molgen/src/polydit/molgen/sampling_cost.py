"""What sampling costs, from a checkpoint's config files alone: for `--dry-run` and `--batch-size auto`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polydit.core.jobs.cost import NetworkCost, computing_seconds, memory_bytes, tokens_per_batch

if TYPE_CHECKING:
    from polydit.core.jobs.device import Device


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
        return self.denoiser.bytes_per_token * (2 if self.guided else 1)

    def seconds(self, num_samples: int, mean_atoms: float, device: Device) -> float:
        """Computing time; loading the networks comes on top."""
        tokens = num_samples * mean_atoms
        passes = self.num_steps * (2 if self.guided else 1)
        operations = passes * self.denoiser.operations(tokens, mean_atoms)
        operations += self.autoencoder.operations(tokens, mean_atoms)
        return computing_seconds(operations, device)

    def memory_bytes(self, tokens: int) -> float:
        """Peak memory of the process with batches of so many atom slots."""
        return memory_bytes(self.parameters, tokens, self.bytes_per_token)

    def tokens_per_batch(self, device: Device) -> int:
        """Atom slots that keep the device busy and fit into half of its free memory: a power of two."""
        return tokens_per_batch(self.bytes_per_token, device)
