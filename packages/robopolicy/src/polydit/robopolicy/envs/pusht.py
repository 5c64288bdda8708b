"""Push-T of gym-pusht (Chi et al. 2023), for evaluation: it has no expert, and its demonstrations are people's.

State, in pixels of a 512 x 512 field: the pusher's xy, and for "push-t" also the block's xy and its angle (rad).
Action: the xy to which the pusher is drawn.
"""

from __future__ import annotations

import os
from typing import Any, Final

import numpy as np
from jaxtyping import Float, UInt8

from polydit.core.errors import MissingExtraError
from polydit.robopolicy.envs.extras import import_extra
from polydit.robopolicy.envs.rendering import RenderConfig
from polydit.robopolicy.envs.simulation import Simulation

_STATE_SIZE: Final = {"push-t": 5, "push-t-pixels": 2}


class PushT(Simulation):
    """One field seen from above; solved when the block covers 95 % of its outline. Arguments as for `Simulation`."""

    name = "pusht"
    fps = 10.0
    max_steps = 300

    def _make(self) -> Any:
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # before pygame: there may be no screen
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # it would greet on stdout, where data goes
        import_extra("gym_pusht", extra=self.name)
        pymunk = import_extra("pymunk", extra=self.name)
        if not hasattr(pymunk.Space, "add_collision_handler"):
            raise MissingExtraError("pymunk<7", "pymunk<7", purpose="The environment 'pusht'")
        envs = import_extra("gym_pusht.envs", extra=self.name)
        return envs.PushTEnv(obs_type="state")

    def _reset(self, seed: int) -> Any:
        return self._gym.reset(seed=seed)[0]

    def _state(self, raw: Any) -> Float[np.ndarray, " s"]:
        return np.asarray(raw)[: _STATE_SIZE[self.task]]

    def _succeeded(self, info: dict[str, Any]) -> bool:
        return bool(info["is_success"])

    def _open_cameras(self, config: RenderConfig) -> tuple[str, ...]:
        return ("top",)

    def _picture(self, camera: str, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
        self._gym.observation_height, self._gym.observation_width = height, width
        # render() would draw the action into the picture, which the data sets' pictures do not show.
        return np.asarray(self._gym._render(visualize=False))

    def _close_cameras(self) -> None:
        """Nothing stays open between two pictures."""
