"""The noise schedule: where a stained slide is white, it must come out white.

Prediction of the noise leaves the mean brightness open: the last step of training still holds a little of the picture,
the first step of sampling nothing (Lin et al. 2023, arXiv 2305.08891). So the last step has no signal at all, sampling
starts there ("trailing" steps), and what is predicted is v.
"""

from __future__ import annotations

import numpy as np
from diffusers import DDIMScheduler
from jaxtyping import Int
from torch import Tensor, from_numpy

from polydit.core.objectives.diffusion import respace
from polydit.core.sampling.cache import Clock


def stain_scheduler() -> DDIMScheduler:
    """Cosine schedule (Nichol & Dhariwal 2021) with zero terminal SNR, trailing steps and v-prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        set_alpha_to_one=True,
    )


def sampler(stored: DDIMScheduler, num_steps: int) -> tuple[DDIMScheduler, Int[Tensor, " s"]]:
    """The scheduler of `num_steps` trailing steps, and what the network is told in each: its times in training.

    diffusers takes every step to be of 1000 // num_steps times. With 7 steps the last one would then end before all
    noise is gone; so the noise levels are those of the steps alone, of which none is left out.

    Args:
        stored: Of a checkpoint.
        num_steps: 1 or more, at most as many as in training.
    """
    total = stored.config.num_train_timesteps
    times = np.round(np.arange(total, 0, -total / num_steps)).astype(np.int64) - 1
    betas = respace(stored.betas.double().numpy(), times[::-1])
    spaced = DDIMScheduler.from_config(
        stored.config,
        num_train_timesteps=num_steps,
        trained_betas=betas.tolist(),
        rescale_betas_zero_snr=False,
    )
    spaced.set_timesteps(num_steps)
    return spaced, from_numpy(times)


def clock_of(spaced: DDIMScheduler) -> Clock:
    """The steps of a `sampler` in time, for caches.

    Without signal √((1-ᾱ) / ᾱ) is infinite. So the noise level is that of the straight path with the same ratio of
    signal to noise, √(1-ᾱ) / (√ᾱ + √(1-ᾱ)), which is 1 there.
    """
    alphas = spaced.alphas_cumprod.double().flip(0)
    noise, signal = (1.0 - alphas).clamp(min=0.0).sqrt(), alphas.sqrt()
    return Clock.flow((noise / (noise + signal)).tolist())
