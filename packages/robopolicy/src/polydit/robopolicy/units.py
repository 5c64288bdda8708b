"""Between the robot's numbers and the network's: scales, and for RDT's unified layout the 128 slots.

Shapes: s state and a action dimensions of the robot, v and w of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.errors import InputError
from polydit.robopolicy.episode import ACTION, STATE
from polydit.robopolicy.normalize import Normalizer
from polydit.robopolicy.spaces.arms import Arm
from polydit.robopolicy.spaces.unified import SIZE


@dataclass(frozen=True, eq=False)
class Units:
    """Both ways.

    Args:
        normalizer: Scales of the robot's own state and action.
        arm: Which of the 128 slots its numbers belong to; None = the network takes them as they are.

    Raises:
        InputError: If the arm's vectors have other lengths than the robot's.
    """

    normalizer: Normalizer
    arm: Arm | None = None

    def __post_init__(self) -> None:
        if self.arm is None:
            return
        for key, size, scale in (
            (STATE, self.arm.sizes["state"], self.normalizer.state),
            (ACTION, self.arm.sizes["action"], self.normalizer.action),
        ):
            if scale.size != size:
                raise InputError(
                    f"{key} has {scale.size} numbers", where=f"arm {self.arm.name}", expected=str(size)
                )

    @property
    def action_size(self) -> int:
        """Numbers in the network's actions w."""
        return SIZE if self.arm else self.normalizer.action.size

    @property
    def model_settings(self) -> dict[str, Any]:
        """What the system has to know of them."""
        return {} if self.arm is None else {"slots": np.flatnonzero(self.arm.masks["action"]).tolist()}

    def state(self, values: Float[np.ndarray, "*rows s"]) -> Float[Tensor, "*rows v"]:
        """States for the network."""
        scaled = self.normalizer.state.normalize(values)
        return torch.from_numpy(scaled if self.arm is None else self.arm.to_unified(scaled, "state"))

    def action(self, values: Float[np.ndarray, "*rows a"]) -> Float[Tensor, "*rows w"]:
        """Actions for the network."""
        scaled = self.normalizer.action.normalize(values)
        return torch.from_numpy(scaled if self.arm is None else self.arm.to_unified(scaled, "action"))

    def robot_action(self, planned: Float[Tensor, "*rows w"]) -> Float[np.ndarray, "*rows a"]:
        """The network's actions for the robot, within the range of the training data."""
        values = planned.float().cpu().numpy()
        scale = self.normalizer.action
        return scale.clip(scale.denormalize(values if self.arm is None else self.arm.from_unified(values)))
