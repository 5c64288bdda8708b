"""wangjiangshan0725/RF-Solver-Edit: inversion and the way back by the midpoint rule, and by Euler's."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from polydit.core.sampling import denoise
from polydit.core.sampling.solvers import FlowSolver, solver
from polydit.core.testing.golden import GoldenCase


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    weights, data = case.state_dict(), case.inputs()["x0"]

    def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        """v(x, σ) of the toy."""
        sigma = timestep / 1000
        mixed = x @ weights["lin.weight"].T + weights["lin.bias"]
        return mixed.tanh() * (1 + sigma) - 0.5 * sigma * x

    found = {}
    for prefix, name in (("", "rf-solver"), ("euler_", "euler")):
        noise = denoise(predict, data, laid_out(case, name, inverse=True))
        found[prefix + "z"] = noise
        found[prefix + "reconstruction"] = denoise(predict, noise, laid_out(case, name))
    return {**found, "schedule": laid_out(case, "rf-solver").sigmas[::2]}  # a step and its middle in turn


def laid_out(case: GoldenCase, name: str, *, inverse: bool = False) -> FlowSolver:
    """The solver after `set_timesteps`."""
    config = case.config
    like = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=config["shift"], base_shift=config["base_shift"], max_shift=config["max_shift"]
    )
    scheduler = solver(name, like, inverse=inverse)
    mu = scheduler.shift_for(config["image_seq_len"]) if config["shift"] else None
    scheduler.set_timesteps(config["steps"], mu=mu)
    return scheduler
