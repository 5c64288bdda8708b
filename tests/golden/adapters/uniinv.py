"""zxYin/ConsistEdit_Code: UniInv, from data to noise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from polydit.core.sampling import denoise
from polydit.core.sampling.solvers import UniInvScheduler
from polydit.core.testing.golden import GoldenCase


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    weights, config = case.state_dict(), case.config
    scheduler = UniInvScheduler(num_train_timesteps=config["num_train_timesteps"], shift=config["shift"])
    scheduler.set_timesteps(
        config["steps"], zero_initial=config["zero_initial"], alpha=float(config["alpha"])
    )
    trajectory = []

    def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        """v(x, σ) of the toy."""
        sigma = timestep / config["num_train_timesteps"]
        mixed = x @ weights["lin.weight"].T + weights["lin.bias"]
        return mixed.tanh() * (1 + sigma) - 0.5 * sigma * x

    def record(x: Tensor, call: int) -> Tensor:
        trajectory.append(x)
        return x

    inverted = denoise(predict, case.inputs()["x0"], scheduler, after_step=record)
    return {
        "inverted": inverted,
        "timesteps": scheduler.timesteps,
        "sigmas": scheduler.sigmas,
        "trajectory": torch.stack(trajectory),
    }
