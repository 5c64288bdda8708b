"""microsoft/RAS: which patches the released rule leaves out, and the samples that follow."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from polydit.core.sampling import denoise
from polydit.core.sampling.ras import RegionAdaptive, RegionRule
from polydit.core.testing.golden import GoldenCase

PATCH = (2, 2)


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    config, given = case.config, case.inputs()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=config["shift"])
    scheduler.set_timesteps(config["steps"])
    rule = RegionRule(
        rule="released",
        sample_ratio=config["sample_ratio"],
        high_ratio=config["high_ratio"],
        start=config["start"],
        end=config["end"],
        reset=tuple(config["reset"]),
        metric=config["metric"],
    )
    velocities = iter(given["v"][:, None])
    run = RegionAdaptive(lambda x, timestep, active: next(velocities), scheduler.sigmas, PATCH, rule)
    samples, cached = [], []

    def record(x: Tensor, call: int) -> Tensor:
        samples.append(x[0])
        assert run.cached is not None
        cached.append(run.cached[0].float())
        return x

    denoise(run, given["x"], scheduler, after_step=record)
    return {"x": torch.stack(samples), "cached": torch.stack(cached)}
