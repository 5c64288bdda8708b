"""Distributions of training times, and of EDM's noise levels. t = 0 is noise and t = 1 is data, as in SiT.

Draws are made on the CPU by the generator that is given, so that they are the same on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class TimeDistribution(Protocol):
    """Where on the path the network is trained."""

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, " b"]:
        """Draw `count` times in [0, 1]."""
        ...


@dataclass(frozen=True)
class UniformTimes:
    """t ~ U(low, high)."""

    low: float = 0.0
    high: float = 1.0

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, " b"]:
        return self.low + (self.high - self.low) * torch.rand(count, generator=generator)


@dataclass(frozen=True)
class LogitNormalTimes:
    """t = sigmoid(mean + std · n), n ~ N(0, 1) (Esser et al. 2024, equation 19)."""

    mean: float = 0.0
    std: float = 1.0

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, " b"]:
        return torch.sigmoid(self.mean + self.std * torch.randn(count, generator=generator))


def shift_time(t: Float[Tensor, " b"], shift: float) -> Float[Tensor, " b"]:
    """Move times toward noise for larger samples (Esser et al. 2024, equation 23, written for t = 1 at data)."""
    noise = 1.0 - t
    return 1.0 - shift * noise / (1.0 + (shift - 1.0) * noise)


@runtime_checkable
class NoiseDistribution(Protocol):
    """At which noise levels σ the network is trained: data + σ · noise."""

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, " b"]:
        """Draw `count` noise levels above 0."""
        ...


@dataclass(frozen=True)
class LogNormalNoise:
    """ln σ = mean + std · n, n ~ N(0, 1) (Karras et al. 2022, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, " b"]:
        return torch.exp(self.mean + self.std * torch.randn(count, generator=generator))


@dataclass(frozen=True)
class LogLogisticNoise:
    """ln σ follows the logistic distribution, cut off outside [low, high] (Reuss et al. 2023, BESO; MoDE).

    Args:
        loc: Mean of ln σ before the cut. MoDE: ln of the data's deviation 0.5.
        scale: Its scale; heavier tails than the log-normal's.
        low: Smallest σ.
        high: Largest σ.
    """

    loc: float = math.log(0.5)
    scale: float = 0.5
    low: float = 0.001
    high: float = 80.0

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, " b"]:
        # by the inverse of the distribution function; in float64, as its upper end is 1 - 4e-5
        ends = torch.tensor([self.low, self.high], dtype=torch.float64)
        first, last = torch.sigmoid((ends.log() - self.loc) / self.scale).tolist()
        draw = first + (last - first) * torch.rand(count, generator=generator, dtype=torch.float64)
        return torch.exp(torch.logit(draw) * self.scale + self.loc).float()
