"""MetaWorld's 50 tasks (Yu et al. 2020, version 3): a Sawyer arm with a gripper over a table, state or pictures.

State, 39 numbers: hand xyz (m), gripper opening, two objects' xyz and quaternion; the same one step before; goal
xyz. Action, 4 numbers in [-1, 1]: the hand's motion in x, y, z (1 = 1 cm a step) and the gripper's force.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
from jaxtyping import Float

from polydit.robopolicy.envs.extras import import_extra
from polydit.robopolicy.envs.mujoco import MujocoSimulation
from polydit.robopolicy.envs.rendering import import_mujoco


class MetaWorld(MujocoSimulation):
    """One of the 50 tasks, its goal visible in the state. Arguments as for `Simulation`.

    The cameras called "corner" hang upside down in the simulator; here their pictures are upright.
    """

    name = "metaworld"
    fps = 80.0
    max_steps = 500
    usual_camera = "corner3"
    upside_down = ("corner", "corner2", "corner3", "corner4")  # LeRobot turns corner2 likewise

    def _make(self) -> Any:
        import_mujoco(self.name)
        metaworld = import_extra("metaworld", extra=self.name)
        kind = metaworld.ALL_V3_ENVIRONMENTS[self.task]
        env = kind()
        # What MT1 does, without drawing the 50 goals that it would choose from: every episode draws its own layout,
        # from its seed. (`gym.make("Meta-World/MT1")` draws with replacement: 50 episodes have some 30 layouts.)
        settings = {"env_cls": kind, "rand_vec": None, "partially_observable": False}
        env.set_task(metaworld.Task(self.task, pickle.dumps(settings)))
        env._freeze_rand_vec = False
        env.seeded_rand_vec = True
        return env

    def _reset(self, seed: int) -> Any:
        self._gym.seed(seed)  # reset() ignores its own seed
        return self._gym.reset(seed=seed)[0]

    def _state(self, raw: Any) -> Float[np.ndarray, " s"]:
        return np.asarray(raw)

    def _succeeded(self, info: dict[str, Any]) -> bool:
        return bool(info["success"])
