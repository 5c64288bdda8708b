"""What the environments in MuJoCo share: pictures of the scene."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from jaxtyping import UInt8

from polydit.robopolicy.envs.rendering import MujocoCameras, RenderConfig
from polydit.robopolicy.envs.simulation import Simulation


class MujocoSimulation(Simulation):
    """A gymnasium environment that has a MuJoCo `model` and its `data`. Arguments as for `Simulation`."""

    usual_camera: str
    upside_down: Collection[str] = ()

    _cameras_of_model: MujocoCameras | None = None

    def _open_cameras(self, config: RenderConfig) -> tuple[str, ...]:
        model, data = self._gym.model, self._gym.data
        cameras = MujocoCameras(model, data, fast=config.fast, upside_down=self.upside_down)
        self._cameras_of_model = cameras
        only_for_people = config.cameras == ()
        height, width = (config.view, config.view) if only_for_people else (config.height, config.width)
        cameras.picture(self.usual_camera, height, width)  # what fails, fails now and not in an episode
        return self.usual_camera, *(name for name in cameras.names if name != self.usual_camera)

    def _picture(self, camera: str, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        assert self._cameras_of_model, "pictures were asked for when the environment was made"
        return self._cameras_of_model.picture(camera, height, width)

    def _close_cameras(self) -> None:
        if self._cameras_of_model:
            self._cameras_of_model.close()
