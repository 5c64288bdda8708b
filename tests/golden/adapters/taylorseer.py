"""TaylorSeer: its forecaster and schedule alone, and both in a run of DiT."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from polydit.core.models.convert import dit_from_published
from polydit.core.models.dit import DiT
from polydit.core.objectives import GaussianDiffusion, respace
from polydit.core.sampling import denoise, guided_model
from polydit.core.sampling.cache import Cache, Interval, Modules, Taylor
from polydit.core.testing.golden import GoldenCase

GUIDED_CHANNELS = 3
RELATIVE = ("sample_taylor", "sample_without_cache", "taylor_minus_without_cache")  # hundreds


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    return toy(case) if "first_enhance" in case.config else sampling(case)


def toy(case: GoldenCase) -> Mapping[str, Tensor]:
    """A known feature; published steps are counted down."""
    a, b, c = (case.inputs()[name] for name in "abc")
    config = case.config
    steps = config["num_steps"]
    plan = Interval(every=config["interval"], warm_up=config["first_enhance"]).plan(steps)
    ladder = Taylor(config["max_order"]).ladder()
    used = []
    for full, step in zip(plan, reversed(range(steps)), strict=True):
        if full:
            time = torch.tensor(-0.05 * step).exp()
            ladder.record(float(step), a * torch.sin(0.35 * step + b) + c * time + 0.01 * step * b)
        used.append(ladder.forecast(float(step)))
    factors = {f"last_factor_{index}": factor for index, factor in enumerate(ladder.factors)}
    return {
        "full_flag_per_step": torch.tensor(plan).float(),
        "features_used": torch.stack(used),
        **factors,
    }


def sampling(case: GoldenCase) -> Mapping[str, Tensor]:
    """DDIM with guidance, every step computed and by the cache."""
    config = case.config
    model = dit_from_published(case.state_dict(), heads=config["num_heads"], sample_size=config["input_size"])
    cache = Cache(Taylor(config["max_order"]), Modules(), Interval(every=config["interval"], warm_up=2))
    full = sample(model, case, None)
    cached = sample(model, case, cache)
    return {
        "sample_taylor": cached,
        "sample_without_cache": full,
        "taylor_minus_without_cache": cached - full,
    }


def sample(model: DiT, case: GoldenCase, cache: Cache | None) -> Tensor:
    z, y = case.inputs()["z"], case.inputs()["y"]
    labels = torch.cat([y, torch.full_like(y, model.config.num_classes)])
    times = np.linspace(0, 999, case.config["sampling_steps"]).round().astype(int)
    diffusion = GaussianDiffusion(respace(GaussianDiffusion.linear().betas, times))
    scheduler = DDIMScheduler(
        trained_betas=diffusion.betas, num_train_timesteps=len(times), clip_sample=False
    )
    scheduler.set_timesteps(len(times))

    def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        t = torch.full((2 * len(x),), int(times[timestep]))
        guided = guided_model(
            lambda doubled: model(doubled, t, labels).sample, x, case.config["cfg_scale"], GUIDED_CHANNELS
        )
        return guided.chunk(2, dim=1)[0]

    with cache.run(model, len(times)) if cache else nullcontext():
        return denoise(predict, z, scheduler)
