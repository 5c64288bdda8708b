"""Gaussian diffusion in discrete time (Ho et al. 2020; Nichol & Dhariwal 2021): ε, v and x₀ predictions.

Sampling goes through diffusers' DDIM and DDPM schedulers; this file has what training needs, the learned variance that
diffusers does not expose, and the respacing of published DiT. Shapes: b items, c channels, * any further axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from diffusers import SchedulerMixin
from jaxtyping import Float, Int
from torch import Tensor

Prediction = Literal["epsilon", "v", "sample"]


def respace(betas: Float[np.ndarray, " t"], timesteps: Int[np.ndarray, " s"]) -> Float[np.ndarray, " s"]:
    """The betas of a shorter diffusion that visits only `timesteps` (ascending).

    diffusers' `DDIMScheduler` takes t - T/S for the step before t, which is another grid whenever S does not divide
    T evenly; with these betas as `trained_betas`, and the model called with the original times, it is exact.
    """
    kept = np.cumprod(1.0 - betas)[timesteps]
    return 1.0 - kept / np.concatenate([[1.0], kept[:-1]])


@dataclass(frozen=True, eq=False)
class Posterior:
    """q(x_{t-1} | x_t, x₀)."""

    mean: Float[Tensor, "b c *rest"]
    log_variance: Float[Tensor, "b c *rest"]


class GaussianDiffusion:
    """q(x_t | x₀) = N(√ᾱ_t x₀, (1 - ᾱ_t) I), t = 0..T-1.

    Args:
        betas: β_t in float64; `GaussianDiffusion.linear()` gives those of DiT.
        prediction: What the network returns. Its loss is the plain squared error of that quantity.
        precision: Of the tables, once ᾱ is computed. np.float32 rounds as PVD and DiT-3D do, which moves the samples
            of the last two steps by up to 4e-3.
    """

    def __init__(
        self,
        betas: Float[np.ndarray, " t"],
        prediction: Prediction = "epsilon",
        precision: type[np.floating] = np.float64,
    ) -> None:
        self.betas, self.prediction = betas.astype(precision), prediction
        self.alphas_cumprod = np.cumprod(1.0 - betas).astype(precision)
        self._previous = np.concatenate([np.ones(1, precision), self.alphas_cumprod[:-1]])

    @classmethod
    def linear(cls, steps: int = 1000, prediction: Prediction = "epsilon") -> GaussianDiffusion:
        """β from 1e-4 to 0.02 (Ho et al. 2020), scaled when there are not 1000 steps."""
        scale = 1000 / steps
        return cls(np.linspace(scale * 1e-4, scale * 0.02, steps), prediction)

    @classmethod
    def of(cls, scheduler: SchedulerMixin, prediction: Prediction = "epsilon") -> GaussianDiffusion:
        """The noise levels of a scheduler of diffusers, so that training and sampling agree."""
        return cls(scheduler.betas.double().numpy(), prediction)

    def noisy(self, data: Tensor, noise: Tensor, t: Int[Tensor, " b"]) -> Tensor:
        """x_t."""
        return (
            self._at(self.alphas_cumprod**0.5, t, data) * data
            + self._at((1.0 - self.alphas_cumprod) ** 0.5, t, data) * noise
        )

    def target(self, data: Tensor, noise: Tensor, t: Int[Tensor, " b"]) -> Tensor:
        """What the network should return: ε, x₀, or v = √ᾱ ε - √(1-ᾱ) x₀ (Salimans & Ho 2022)."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return data
        signal = self._at(self.alphas_cumprod**0.5, t, data)
        return signal * noise - self._at((1.0 - self.alphas_cumprod) ** 0.5, t, data) * data

    def loss(
        self, prediction: Tensor, data: Tensor, noise: Tensor, t: Int[Tensor, " b"]
    ) -> Float[Tensor, " b"]:
        """Mean squared error of each item."""
        return (prediction.float() - self.target(data, noise, t)).square().flatten(1).mean(1)

    def data_from(self, prediction: Tensor, x_t: Tensor, t: Int[Tensor, " b"]) -> Tensor:
        """x̂₀ from the network's prediction."""
        if self.prediction == "sample":
            return prediction
        if self.prediction == "epsilon":
            inverse = 1.0 / self.alphas_cumprod
            return (
                self._at(inverse**0.5, t, x_t) * x_t - self._at((inverse - 1.0) ** 0.5, t, x_t) * prediction
            )
        signal = self._at(self.alphas_cumprod**0.5, t, x_t)
        return signal * x_t - self._at((1.0 - self.alphas_cumprod) ** 0.5, t, x_t) * prediction

    def velocity(self, data: Tensor, x_t: Tensor, t: Int[Tensor, " b"]) -> Tensor:
        """v from x₀ or its estimate: (√ᾱ x_t - x₀) / √(1-ᾱ), which is -x₀ where nothing is left of it."""
        signal = self._at(self.alphas_cumprod**0.5, t, x_t)
        return (signal * x_t - data) / self._at((1.0 - self.alphas_cumprod) ** 0.5, t, x_t)

    def clean_weight(self, t: Int[Tensor, " b"], gamma: float) -> Float[Tensor, " b"]:
        """What a squared error of x₀ weighs as one of v, 1 / (1-ᾱ) = SNR + 1, at most γ.

        The limit is that of min-SNR (Hang et al. 2023, arXiv 2303.09556): the last steps, where the noise that is left
        hides nothing, would outweigh all others.
        """
        weight = 1.0 / np.maximum(1.0 - self.alphas_cumprod, 1.0 / gamma)
        return torch.from_numpy(weight).float().to(t.device)[t]

    def posterior(
        self, data: Tensor, x_t: Tensor, t: Int[Tensor, " b"], v: Tensor | None = None
    ) -> Posterior:
        """Mean and log-variance of one step back.

        Args:
            data: x₀ or its estimate.
            x_t: Noisy sample.
            t: Times.
            v: The network's second half of the channels, in [-1, 1]: where the log-variance lies between the
                posterior's (-1) and log β (1) (Nichol & Dhariwal 2021, equation 15). None = the posterior's own.
        """
        variance = self.betas * (1.0 - self._previous) / (1.0 - self.alphas_cumprod)
        # the first variance is 0, so its logarithm takes the second's place
        low = self._at(np.log(np.append(variance[1], variance[1:])), t, x_t)
        from_data = self.betas * self._previous**0.5 / (1.0 - self.alphas_cumprod)
        from_x = (1.0 - self._previous) * (1.0 - self.betas) ** 0.5 / (1.0 - self.alphas_cumprod)
        mean = self._at(from_data, t, x_t) * data + self._at(from_x, t, x_t) * x_t
        if v is None:
            return Posterior(mean, low.expand_as(x_t))
        share = (v + 1.0) / 2.0
        return Posterior(mean, share * self._at(np.log(self.betas), t, x_t) + (1.0 - share) * low)

    @staticmethod
    def _at(table: Float[np.ndarray, " t"], t: Int[Tensor, " b"], x: Tensor) -> Tensor:
        values = torch.from_numpy(table).to(x.device)[t].to(x.dtype)
        return values.reshape(-1, *(1,) * (x.ndim - 1))
