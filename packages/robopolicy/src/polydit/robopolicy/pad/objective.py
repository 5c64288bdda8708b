"""How PAD is trained and sampled: one diffusion over all modalities, with one clock and a learned variance.

Shapes: b items, t times, e text width, * any further axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DDPMScheduler
from jaxtyping import Bool, Float, Int
from torch import Tensor

from polydit.core.objectives.diffusion import GaussianDiffusion, Prediction, respace
from polydit.core.sampling import denoise
from polydit.core.sampling.cache import Clock
from polydit.robopolicy.pad.network import Modalities

__all__ = ["JointDiffusion", "respaced_times", "variance_bound"]

Network = Callable[..., tuple[Modalities, Modalities]]
STEPS = 1000  # of the diffusion that the network is trained with
_SCHEDULER_PREDICTION = {"epsilon": "epsilon", "sample": "sample", "v": "v_prediction"}


def respaced_times(num_steps: int) -> Int[np.ndarray, " t"]:
    """The times out of 0..999, ascending, that a sampler of `num_steps` visits, as in published DiT."""
    return np.linspace(0, STEPS - 1, num_steps).round().astype(np.int64)


def variance_bound(
    diffusion: GaussianDiffusion,
    error: Float[Tensor, " b *rest"],
    variance: Float[Tensor, " b *rest"],
    t: Int[Tensor, " b"],
) -> Float[Tensor, " b *rest"]:
    """KL(q(x_{t-1} | x_t, x₀) ‖ p(x_{t-1} | x_t)) of each number in bits: what the learned variance is trained by.

    Nichol & Dhariwal 2021, section 3.1. The two means differ by the prediction's error times a factor of t alone; the
    log-variances log β̃ and log β̃ - γ differ by γ = (log β̃ - log β) (v + 1) / 2. So the divergence is::

        ½ (e^γ (1 + factor² · error / β̃) - 1 - γ)

    No gradient reaches the prediction, so that it learns from the plain squared error alone. At t = 0 the published
    code takes the likelihood of 8-bit values instead; latents and actions are none, so here that time is as the others,
    with the variance of t = 1 in place of 0.

    Args:
        diffusion: The diffusion of all modalities.
        error: Squared error of the network's prediction.
        variance: The network's v.
        t: Times.
    """
    one = error.new_ones(len(t), *(1,) * (error.ndim - 1))
    nothing = torch.zeros_like(one)
    factor = diffusion.posterior(diffusion.data_from(one, nothing, t), nothing, t).mean
    low = diffusion.posterior(nothing, nothing, t).log_variance
    high = diffusion.posterior(nothing, nothing, t, one).log_variance
    gap = (low - high) / 2.0 * (variance + 1.0)
    widened = gap.exp() * (1.0 + factor.square() * torch.exp(-low) * error.detach())
    return (widened - 1.0 - gap) / (2.0 * math.log(2.0))


@dataclass(frozen=True, kw_only=True)
class JointDiffusion:
    """The diffusion that all modalities share: linear β over 1000 steps, one time for all of an item.

    Args:
        prediction: What the network returns: "epsilon", as published, "sample" or "v". Patches of pixels hold many more
            numbers than a narrow network's tokens, so noise does not fit through it, while clean pictures do:
            "sample" is for small networks without an autoencoder.
    """

    prediction: Prediction = "epsilon"

    def loss(
        self,
        network: Network,
        data: Modalities,
        now: Modalities,
        text: Float[Tensor, "b e"],
        generator: torch.Generator,
        *,
        counted: Mapping[str, Float[Tensor, "b ..."]] | None = None,
        present: Mapping[str, Bool[Tensor, " b"]] | None = None,
    ) -> dict[str, Tensor]:
        """Squared error plus variance bound of each modality, averaged over the numbers that count.

        Args:
            network: `PADTransformer`, or what takes and returns the same.
            data: Clean futures.
            now: The present.
            text: Embedding of the instruction.
            generator: CPU generator of times and noise.
            counted: 0 for numbers that do not count (actions after an episode's end), by modality; shapes that
                broadcast. Not given = all count.
            present: As `PADTransformer.forward` takes it.

        Returns:
            The sum of both under each modality's name, and its squared error under "<name>_mse".
        """
        diffusion = GaussianDiffusion.linear(STEPS, self.prediction)
        t = torch.randint(STEPS, (len(text),), generator=generator).to(text.device)
        noise = data.map(lambda _, x: torch.randn(x.shape, generator=generator).to(x))
        noisy = data.map(lambda name, x: diffusion.noisy(x, noise[name], t))
        value, variance = network(noisy, now, t, text, present)
        terms: dict[str, Tensor] = {}
        for name, x in data.items():
            got, v = value[name].float(), variance[name].float()
            error = (got - diffusion.target(x, noise[name], t)).square()
            weight = (counted or {}).get(name)
            terms[f"{name}_mse"] = _mean(error, weight)
            terms[name] = terms[f"{name}_mse"] + _mean(variance_bound(diffusion, error, v, t), weight)
        return terms

    def clock(self, num_steps: int) -> Clock:
        """The network calls of `sample` in time, for caches."""
        kept = GaussianDiffusion.linear(STEPS).alphas_cumprod[respaced_times(num_steps)[::-1].copy()]
        return Clock.diffusion(kept.tolist())

    @torch.no_grad()
    def sample(
        self,
        network: Network,
        noise: Modalities,
        now: Modalities,
        text: Float[Tensor, "b e"],
        num_steps: int,
        generators: Sequence[torch.Generator],
    ) -> Modalities:
        """Ancestral sampling of all modalities together (Ho et al. 2020, algorithm 2) with the learned variance.

        The variance is kept between its two bounds. The published sampler does not do so; its networks were trained
        long enough to stay there by themselves, and small ones are not.

        Args:
            network: As in `loss`.
            noise: Standard normal noise; its modalities are those that are generated.
            now: The present.
            text: Embedding of the instruction.
            num_steps: Network calls, 2..1000.
            generators: One per item, for the noise of every step, so that an item's result does not depend on its
                batch.
        """
        times = respaced_times(num_steps)
        scheduler = DDPMScheduler(
            trained_betas=respace(GaussianDiffusion.linear(STEPS).betas, times),
            num_train_timesteps=num_steps,
            variance_type="learned_range",
            prediction_type=_SCHEDULER_PREDICTION[self.prediction],
            clip_sample=False,
        )
        scheduler.set_timesteps(num_steps)

        def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
            t = torch.full((len(x),), int(times[int(timestep)]), device=x.device)
            value, variance = network(_unjoin(x, noise), now, t, text)
            # outside its range v would extrapolate the variance: by powers of ten where few steps lie far apart
            return torch.cat([_join(value), _join(variance).clamp(-1.0, 1.0)], dim=1).float()

        return _unjoin(denoise(predict, _join(noise), scheduler, generator=list(generators)), noise)


def _mean(x: Float[Tensor, " b *rest"], weight: Float[Tensor, "b ..."] | None) -> Float[Tensor, ""]:
    """Mean over the numbers that count; 0 if none does."""
    if weight is None:
        return x.mean()
    return (x * weight).sum() / weight.expand_as(x).sum().clamp(min=1.0)


def _join(parts: Modalities) -> Float[Tensor, "b n"]:
    """All modalities of an item in one row, as a scheduler takes them."""
    return torch.cat([x.flatten(1) for _, x in parts.items()], dim=1)


def _unjoin(row: Float[Tensor, "b n"], like: Modalities) -> Modalities:
    """Undo `_join`."""
    sizes = [x[0].numel() for _, x in like.items()]
    split = dict(zip((name for name, _ in like.items()), row.split(sizes, dim=1), strict=True))
    return like.map(lambda name, x: split[name].reshape(x.shape))
