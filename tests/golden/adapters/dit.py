"""facebookresearch/DiT: the network, guidance, the respaced sampler and the learned variance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from polydit.core.models.convert import dit_from_published
from polydit.core.models.dit import DiT
from polydit.core.objectives import GaussianDiffusion, respace
from polydit.core.sampling import denoise, guided_model
from polydit.core.testing.golden import GoldenCase

GUIDED_CHANNELS = 3


def outputs(case: GoldenCase) -> Mapping[str, Tensor]:
    model = dit_from_published(
        case.state_dict(), heads=case.config["num_heads"], sample_size=case.config["input_size"]
    )
    return forwards(model, case) if "x" in case.inputs() else sampling(model, case)


def forwards(model: DiT, case: GoldenCase) -> Mapping[str, Tensor]:
    x, t, y = (case.inputs()[name] for name in ("x", "t", "y"))
    guided = guided_model(partial(call, model, t, y), x, case.config.get("cfg_scale", 4.0), GUIDED_CHANNELS)
    null = torch.full_like(y, model.config.num_classes)
    # published code returns both halves of the doubled batch; the null half's other channels are unguided, too
    null_half = torch.cat([guided[:, :GUIDED_CHANNELS], model(x, t, null).sample[:, GUIDED_CHANNELS:]], dim=1)
    return {"forward": model(x, t, y).sample, "forward_with_cfg": torch.cat([guided, null_half])}


def call(model: DiT, t: Tensor, y: Tensor, doubled: Tensor) -> Tensor:
    """The network on [conditional, null]."""
    null = torch.full_like(y, model.config.num_classes)
    return model(doubled, torch.cat([t, t]), torch.cat([y, null])).sample


def sampling(model: DiT, case: GoldenCase) -> Mapping[str, Tensor]:
    """DDIM over a respaced diffusion, and one step's mean and variance."""
    z, y = case.inputs()["z"], case.inputs()["y"]
    name, steps, scale = next(m.group(0, 1, 2) for m in map(_DDIM.fullmatch, case.output_names) if m)
    times = np.linspace(0, 999, int(steps)).round().astype(int)
    diffusion = GaussianDiffusion(respace(GaussianDiffusion.linear().betas, times))
    scheduler = DDIMScheduler(
        trained_betas=diffusion.betas, num_train_timesteps=len(times), clip_sample=False
    )
    scheduler.set_timesteps(len(times))

    def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        t = torch.full((len(x),), int(times[timestep]))
        return guided_model(partial(call, model, t, y), x, float(scale), GUIDED_CHANNELS).chunk(2, dim=1)[0]

    step = next(int(m[1]) for m in map(_STEP.search, case.output_names) if m)
    index = torch.full((len(z),), step)
    noise, v = model(z, torch.full((len(z),), int(times[step])), y).sample.chunk(2, dim=1)
    data = diffusion.data_from(noise, z, index)
    posterior = diffusion.posterior(data, z, index, v)
    return {
        "timesteps": torch.from_numpy(times),
        name: denoise(predict, z, scheduler),
        f"p_mean_at_respaced_step_{step}": posterior.mean,
        f"p_log_variance_at_respaced_step_{step}": posterior.log_variance,
        f"pred_xstart_at_respaced_step_{step}": data,
    }


_DDIM = re.compile(r"ddim_(\d+)_steps_cfg([\d.]+)")
_STEP = re.compile(r"_step_(\d+)$")
