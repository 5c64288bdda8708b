"""Flow matching on the straight path (Lipman et al. 2023; Liu et al. 2023).

x_t = (1 - t) · noise + t · data, so t = 0 is noise and t = 1 is data. diffusers' sigma is our 1 - t, and its velocity
(noise - data) is ours with the sign changed. Shapes: b items, * any further axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from polydit.core.objectives.times import TimeDistribution, UniformTimes

Prediction = Literal["data", "velocity"]


def _as(t: Float[Tensor, " b"], x: Float[Tensor, " b *rest"]) -> Tensor:
    """Give `t` trailing axes so that it broadcasts against `x`."""
    return t.to(x).reshape(-1, *(1,) * (x.ndim - 1))


class LinearPath:
    """Every conversion on x_t = (1 - t) · noise + t · data; `v` is data - noise."""

    @staticmethod
    def interpolate(noise: Tensor, data: Tensor, t: Float[Tensor, " b"]) -> Tensor:
        """x_t."""
        return torch.lerp(noise, data, _as(t, data))

    @staticmethod
    def data_from_velocity(x: Tensor, v: Tensor, t: Float[Tensor, " b"]) -> Tensor:
        """x + (1 - t) v."""
        return x + (1.0 - _as(t, x)) * v

    @staticmethod
    def velocity_from_data(x: Tensor, data: Tensor, t: Float[Tensor, " b"]) -> Tensor:
        """(data - x) / (1 - t); t < 1."""
        return (data - x) / (1.0 - _as(t, x))

    @staticmethod
    def noise_from_velocity(x: Tensor, v: Tensor, t: Float[Tensor, " b"]) -> Tensor:
        """x - t v."""
        return x - _as(t, x) * v

    @staticmethod
    def score_from_velocity(x: Tensor, v: Tensor, t: Float[Tensor, " b"]) -> Tensor:
        """∇ log p_t(x) = (t v - x) / (1 - t); t < 1 (Ma et al. 2024, equation 9)."""
        return (_as(t, x) * v - x) / (1.0 - _as(t, x))

    @staticmethod
    def precondition(x: Tensor, raw: Tensor, t: Float[Tensor, " b"]) -> Tensor:
        """A prediction of the data from a network's raw output: c_skip · x + c_out · raw, in float32.

        The preconditioning of EDM (Karras et al. 2022, table 1) written for this path and data of unit variance::

            c_skip = t / (t² + (1 - t)²)        c_out = (1 - t) / √(t² + (1 - t)²)

        So the network need not copy what it is given: near t = 1 its errors, and those of low precision, fade out, and
        with the weight 1 / (1 - t)² its own target has about the same size at all times.
        """
        power = t.float().square() + (1.0 - t.float()).square()
        skip, out = t.float() / power, (1.0 - t.float()) / power.sqrt()
        return _as(skip, x.float()) * x.float() + _as(out, x.float()) * raw.float()

    @classmethod
    def sde_drift(
        cls, x: Tensor, v: Tensor, t: Float[Tensor, " b"], diffusion: Float[Tensor, " b"]
    ) -> Tensor:
        """v + w(t) · score: the drift of the SDE with the same marginals and diffusion w (Ma et al. 2024, eq. 7)."""
        return v + _as(diffusion, x) * cls.score_from_velocity(x, v, t)


@dataclass(frozen=True, eq=False)
class NoisySample:
    """A training point on the path: x_t, its time, and both ends."""

    x_t: Float[Tensor, " b *rest"]
    t: Float[Tensor, " b"]
    noise: Float[Tensor, " b *rest"]
    data: Float[Tensor, " b *rest"]


@dataclass(frozen=True, kw_only=True)
class FlowMatching:
    """The flow-matching objective.

    Args:
        prediction: What the network returns. "velocity": loss = |v̂ - v|². "data": loss = |x̂₁ - x₁|² / (1 - t)², which
            is the same velocity error written for a network that predicts the data.
        times: Distribution of training times.
        max_weight_time: The weight 1 / (1 - t)² grows no further than at this time. ADiT: 0.9, so at most 100.
    """

    prediction: Prediction = "velocity"
    times: TimeDistribution = field(default_factory=UniformTimes)
    max_weight_time: float = 0.9

    def noisy(
        self,
        data: Float[Tensor, " b *rest"],
        noise: Float[Tensor, " b *rest"],
        generator: torch.Generator | None = None,
    ) -> NoisySample:
        """Draw a time for each item and go there."""
        t = self.times.sample(data.shape[0], generator).to(data.device)
        return NoisySample(LinearPath.interpolate(noise, data, t), t, noise, data)

    def loss(
        self,
        prediction: Float[Tensor, " b *rest"],
        sample: NoisySample,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, " b"]:
        """Weighted squared error of each item: its mean over channels and over unmasked tokens (axis 1)."""
        if self.prediction == "velocity":
            error = prediction.float() - (sample.data - sample.noise)
        else:
            remaining = 1.0 - sample.t.clamp(max=self.max_weight_time)
            error = (prediction.float() - sample.data) / _as(remaining, sample.data)
        if mask is None:
            return error.square().flatten(1).mean(1)
        per_token = error.square().flatten(2).mean(2)
        return (per_token * mask).sum(1) / mask.sum(1)
