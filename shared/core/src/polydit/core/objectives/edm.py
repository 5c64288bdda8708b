"""EDM: denoising at a noise level σ with a preconditioned network (Karras et al. 2022).

x = data + σ · noise. With the deviation s of the data, the denoiser is made of the network F by table 1::

    D(x, σ) = c_skip · x + c_out · F(c_in · x, c_noise)
    c_skip = s² / (σ² + s²)      c_out = σ s / √(σ² + s²)      c_in = 1 / √(σ² + s²)      c_noise = ln(σ) / 4

Shapes: b items, * any further axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from diffusers import EDMDPMSolverMultistepScheduler
from jaxtyping import Bool, Float
from torch import Tensor

from polydit.core.objectives.flow import NoisySample
from polydit.core.objectives.times import LogNormalNoise, NoiseDistribution


def _as(sigma: Float[Tensor, " b"], x: Float[Tensor, " b *rest"]) -> Tensor:
    """Give `sigma` trailing axes so that it broadcasts against `x`."""
    return sigma.to(x).reshape(-1, *(1,) * (x.ndim - 1))


@dataclass(frozen=True, kw_only=True)
class EDM:
    """EDM's objective: the network's own target, which has unit variance at every noise level.

    The mean squared error of F against its target is EDM's weighted error of the denoiser,
    (σ² + s²) / (σ s)² · |D - data|² (section 5, equations 7 and 8).

    Args:
        sigma_data: Standard deviation of the data s.
        noise: Distribution of training noise levels.
    """

    sigma_data: float = 0.5
    noise: NoiseDistribution = field(default_factory=LogNormalNoise)

    def noisy(
        self,
        data: Float[Tensor, " b *rest"],
        noise: Float[Tensor, " b *rest"],
        generator: torch.Generator | None = None,
    ) -> NoisySample:
        """Draw a noise level for each item, its `t`, and go there."""
        sigma = self.noise.sample(data.shape[0], generator).to(data.device)
        return NoisySample(data + _as(sigma, data) * noise, sigma, noise, data)

    def scaled(self, x: Float[Tensor, " b *rest"], sigma: Float[Tensor, " b"]) -> Float[Tensor, " b *rest"]:
        """c_in · x: what the network is given."""
        return x * torch.rsqrt(_as(sigma, x).square() + self.sigma_data**2)

    @staticmethod
    def condition(sigma: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """c_noise: how the network is told the noise level; also what diffusers' EDM schedulers call a timestep."""
        return sigma.log() / 4.0

    def denoised(
        self, x: Float[Tensor, " b *rest"], prediction: Float[Tensor, " b *rest"], sigma: Float[Tensor, " b"]
    ) -> Float[Tensor, " b *rest"]:
        """D from the network's F."""
        level = _as(sigma, x)
        power = level.square() + self.sigma_data**2
        return x * (self.sigma_data**2 / power) + prediction * (level * self.sigma_data * torch.rsqrt(power))

    def target(self, sample: NoisySample) -> Float[Tensor, " b *rest"]:
        """(data - c_skip · x) / c_out = (σ/s · data - s · noise) / √(σ² + s²), which loses no digits at small σ."""
        level = _as(sample.t, sample.data)
        mixed = level / self.sigma_data * sample.data - self.sigma_data * sample.noise
        return mixed * torch.rsqrt(level.square() + self.sigma_data**2)

    def loss(
        self,
        prediction: Float[Tensor, " b *rest"],
        sample: NoisySample,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, " b"]:
        """Squared error of each item: its mean over channels and over unmasked tokens (axis 1)."""
        error = (prediction.float() - self.target(sample)).square()
        if mask is None:
            return error.flatten(1).mean(1)
        return (error.flatten(2).mean(2) * mask).sum(1) / mask.sum(1)

    def scheduler(
        self,
        *,
        low: float,
        high: float,
        spacing: Literal["karras", "exponential"] = "karras",
        order: int = 1,
    ) -> EDMDPMSolverMultistepScheduler:
        """diffusers' sampler for this objective; after `set_timesteps`, `sampling.denoise` runs it.

        The network is called with (`scaled`, `condition`). Start from `high` · noise: the scheduler's own
        `init_noise_sigma` is √(high² + 1).

        Args:
            low: Smallest noise level above 0, which is the last.
            high: First noise level.
            spacing: "exponential" spaces ln σ evenly; "karras" as in EDM, equation 5, with ρ = 7.
            order: 1 is DDIM, x ← (σ'/σ) x + (1 - σ'/σ) D; 2 and 3 are DPM-Solver++ (Lu et al. 2022).

        Note:
            A single step would start at `low`, so take at least 2.
        """
        return EDMDPMSolverMultistepScheduler(
            sigma_min=low,
            sigma_max=high,
            sigma_data=self.sigma_data,
            sigma_schedule=spacing,
            solver_order=order,
        )
