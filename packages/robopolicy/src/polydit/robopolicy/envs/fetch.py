"""The Fetch arm of gymnasium-robotics (Plappert et al. 2018): reach, push, slide, pick and place.

State: the simulator's observation (10 numbers for reach, 25 for the others; the first three are the gripper's xyz in
m) and the goal's xyz. Action, 4 numbers in [-1, 1]: motion in x, y, z (1 = 5 cm a step) and the gripper.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from polydit.robopolicy.envs.extras import import_extra
from polydit.robopolicy.envs.mujoco import MujocoSimulation
from polydit.robopolicy.envs.rendering import import_mujoco


class Fetch(MujocoSimulation):
    """One of the four tasks. Arguments as for `Simulation`."""

    name = "fetch"
    fps = 25.0
    max_steps = 50
    usual_camera = "external_camera_0"

    def _make(self) -> Any:
        import_mujoco(self.name)
        import_extra("gymnasium_robotics", extra=self.name)
        import gymnasium

        # Unwrapped: the count of steps and the check of actions are ours.
        return gymnasium.make(self.task, disable_env_checker=True).unwrapped

    def _reset(self, seed: int) -> Any:
        return self._gym.reset(seed=seed)[0]

    def _state(self, raw: Any) -> Float[np.ndarray, " s"]:
        return np.concatenate([raw["observation"], raw["desired_goal"]])

    def _succeeded(self, info: dict[str, Any]) -> bool:
        return bool(info["is_success"])

    def _picture(self, camera: str, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        self._gym._render_callback()  # puts the goal's mark where the goal is
        return super()._picture(camera, height, width)
