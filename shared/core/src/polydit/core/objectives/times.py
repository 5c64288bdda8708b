"""Distributions of training times. Here t = 0 is noise and t = 1 is data, as in SiT and flow_matching.

Draws are made on the CPU by the generator that is given, so that they are the same on every device.
"""

from __future__ import annotations

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
