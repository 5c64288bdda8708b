"""What a policy learns from: windows of demonstrations as its network takes them, and the loss of its own system.

Shapes: b items, h actions in a chunk, k cameras, f future pictures, l language tokens, e their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from polydit.robopolicy.batch import ActionModel, PolicyBatch
from polydit.robopolicy.data.windows import Windows
from polydit.robopolicy.language import Instructions
from polydit.robopolicy.pictures import to_squares
from polydit.robopolicy.units import Units

NOW = 0  # offset of the picture that belongs to the state


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """Windows of a data set as batches.

    `Trainer` is given the windows' numbers as items: `collate` gathers a whole batch at once, which is many times
    faster than item by item.

    Args:
        windows: Windows of the data set; their pictures are at the offsets `NOW` and then the future ones.
        units: Between the data's numbers and the network's.
        instructions: Embeddings; they must cover the windows' tasks.
        image_size: Side of the squares that pictures are scaled to.

    Raises:
        InputError: If a task has no embedding.
    """

    windows: Windows
    units: Units
    instructions: Instructions
    image_size: int = 64

    def __post_init__(self) -> None:
        self.instructions.require(self.windows.tasks, where="the data's tasks")

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.windows)

    def collate(self, items: list[int]) -> PolicyBatch:
        """The windows of those numbers.

        Raises:
            InputError: If pictures are missing or damaged.
        """
        window = self.windows.batch(self.windows.locate(np.array(items)))
        language, mask = self.instructions.batch(window.tasks)
        pictures = [self._squares(window.images[camera]) for camera in self.windows.cameras]
        future = pictures[0][:, 1:] if pictures and pictures[0].shape[1] > 1 else None
        return PolicyBatch(
            state=self.units.state(window.state),
            language=language,
            language_mask=mask,
            control_frequency=torch.full((len(items),), float(self.windows.fps)),
            images=torch.stack([frames[:, NOW] for frames in pictures], dim=1) if pictures else None,
            actions=self.units.action(window.actions),
            action_is_pad=torch.from_numpy(window.is_pad),
            future_images=future,
        )

    def _squares(self, pictures: UInt8[np.ndarray, "b o y x 3"]) -> Float[Tensor, "b o 3 size size"]:
        flat = to_squares(pictures.reshape(-1, *pictures.shape[2:]), self.image_size)
        return flat.unflatten(0, pictures.shape[:2])


class PolicyLoss(nn.Module):
    """A system's loss as a forward pass, which is what accelerate wraps for several processes.

    Args:
        policy: The system.
        network: Its network; the weights to train.
    """

    def __init__(self, policy: ActionModel, network: nn.Module) -> None:
        super().__init__()
        self.policy, self.network = policy, network

    def forward(self, batch: PolicyBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars of a batch."""
        return self.policy.loss(batch, generator)


@dataclass(eq=False)
class PolicyTask:
    """Plan the actions that were demonstrated. `Trainer`'s task."""

    model: PolicyLoss

    def loss(self, model: nn.Module, batch: PolicyBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars of a batch; "loss" is minimised."""
        scalars: dict[str, Tensor] = model(batch, generator)
        return scalars


def offsets(future: Sequence[int]) -> tuple[int, ...]:
    """Frames at which windows need pictures: the present, and those that the system predicts."""
    return (NOW, *future)
