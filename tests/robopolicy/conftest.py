"""A tiny policy with random weights, and its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from polydit.robopolicy.policy import RobotPolicy

STATE_SIZE, ACTION_SIZE, HORIZON, EXECUTE, FPS = 5, 3, 6, 2, 20.0
TASKS = ("open the drawer", "push the button")


@pytest.fixture(scope="session")
def new_tiny_policy() -> Callable[..., RobotPolicy]:
    """``new_tiny_policy(cameras=("top",))``: all parts at their smallest, weights from the seed."""
    import torch
    from torch import nn

    from polydit.robopolicy.language import Instructions
    from polydit.robopolicy.models import Sizes, build_network
    from polydit.robopolicy.normalize import Normalizer
    from polydit.robopolicy.policy import RobotPolicy
    from polydit.robopolicy.recipe import NetworkSize, Recipe

    def statistics(size: int) -> dict[str, np.ndarray]:
        spread = np.linspace(0.5, 1.0, size)
        row = {"mean": np.zeros(size), "std": spread, "min": -spread, "max": spread}
        return {**row, "q01": -0.9 * spread, "q99": 0.9 * spread}

    def make(*, cameras: tuple[str, ...] = (), tasks: tuple[str, ...] = TASKS, seed: int = 0) -> RobotPolicy:
        torch.manual_seed(seed)
        size = NetworkSize(width=32, depth=2, heads=2)
        recipe = Recipe(model="rdt", network=size, horizon=HORIZON, cameras=cameras, image_size=32)
        sizes = Sizes(state=STATE_SIZE, action=ACTION_SIZE, language=8, language_tokens=1)
        network = build_network(recipe, sizes)
        with torch.no_grad():
            for parameter in network.parameters():
                if not parameter.any():  # a head that starts at zero would answer nothing but zeros
                    nn.init.normal_(parameter, std=0.2)
        rows = {"observation.state": statistics(STATE_SIZE), "action": statistics(ACTION_SIZE)}
        return RobotPolicy(
            network.eval(),
            Normalizer.of(rows, state="mean_std", action="min_max"),
            Instructions.vectors(tasks, 8),
            model="rdt",
            execute=EXECUTE,
            fps=FPS,
            robot_type="test arm",
            cameras=cameras,
            image_size=recipe.image_size,
        )

    return make


@pytest.fixture(scope="session")
def tiny_policy(new_tiny_policy: Callable[..., RobotPolicy]) -> RobotPolicy:
    """A state policy that knows two tasks."""
    return new_tiny_policy()


@pytest.fixture(scope="session")
def tiny_folder(tiny_policy: RobotPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tiny_policy`."""
    folder = tmp_path_factory.mktemp("policies") / "tiny"
    tiny_policy.save_pretrained(folder)
    return folder


@pytest.fixture
def observation() -> dict[str, np.ndarray | str]:
    """What `tiny_policy` may see."""
    state = np.linspace(-0.5, 0.5, STATE_SIZE, dtype=np.float32)
    return {"observation.state": state, "task": TASKS[0]}
