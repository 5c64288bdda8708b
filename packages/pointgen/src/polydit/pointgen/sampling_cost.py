"""What sampling costs, from a checkpoint's config files alone: for `--dry-run` and `--batch-size auto`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from polydit.core.errors import CheckpointError
from polydit.core.jobs.cost import (
    NetworkCost,
    computing_seconds,
    memory_bytes,
    read_config,
    tokens_per_batch,
)

if TYPE_CHECKING:
    from polydit.core.jobs.device import Device

# float32 copies that live at once: of the grid's channels, and of a cloud's coordinates
_GRIDS, _CLOUDS = 4, 12
_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class SamplingCost:
    """Cost of a run.

    Args:
        network: Called `num_steps` times.
        tokens: Of a cloud, whatever its number of points.
        attended: Tokens that a token attends to, the mean over the blocks.
        voxels: Cells of the grid.
        num_points: Of a cloud.
        num_steps: Calls per sample.
        guided: Whether each call does two passes.
    """

    network: NetworkCost
    tokens: int
    attended: float
    voxels: int
    num_points: int
    num_steps: int
    guided: bool

    @classmethod
    def read(
        cls, checkpoint: Path, *, num_points: int, num_steps: int, guidance_scale: float
    ) -> SamplingCost:
        """From a checkpoint folder.

        Raises:
            CheckpointError: A config or weight file is missing or damaged.
        """
        folder = checkpoint / "network"
        network, config = NetworkCost.read(folder), read_config(folder)
        try:
            voxels, patch = int(config["voxels"]), int(config["patch_size"])
            window, windowed = int(config.get("window", 0)), len(config.get("window_blocks", ()))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError("its config.json is damaged", where=str(folder)) from error
        tokens, share = (voxels // patch) ** 3, windowed / network.depth if window else 0.0
        attended = tokens * (1.0 - share) + window**3 * share
        guided = guidance_scale not in (0.0, 1.0)
        return cls(network, tokens, attended, voxels**3, num_points, num_steps, guided)

    @property
    def bytes_per_cloud(self) -> int:
        """Memory that grows with the batch, per cloud."""
        passes = 2 if self.guided else 1
        floats = _GRIDS * _CHANNELS * self.voxels + _CLOUDS * 3 * self.num_points
        return passes * (self.tokens * self.network.bytes_per_token + 4 * floats)

    def seconds(self, num_samples: int, device: Device) -> float:
        """Computing time; loading the network comes on top."""
        passes = self.num_steps * (2 if self.guided else 1)
        operations = self.network.operations(num_samples * self.tokens, self.attended)
        return computing_seconds(passes * operations, device)

    def memory_bytes(self, clouds: int) -> float:
        """Peak memory of the process with batches of so many clouds."""
        return memory_bytes(self.network.parameters, clouds, self.bytes_per_cloud)

    def clouds_per_batch(self, device: Device) -> int:
        """Clouds that keep the device busy and fit into half of its free memory."""
        return max(1, tokens_per_batch(self.bytes_per_cloud // self.tokens, device) // self.tokens)
