"""GFMDiff's diffusion: EDM's variance-preserving process on positions, types, atomic numbers and degrees.

Hoogeboom et al. 2022 (EDM), section 3 and the appendix on noise schedules; the state and its scales are GFMDiff's.
Shapes: b molecules, n atom slots, f channels of the state, t steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from polydit.core.nn.patterns import padding_of
from polydit.molgen.data.structure import Structure
from polydit.molgen.gfmdiff.loss import QM9_TYPES
from polydit.molgen.train import centred

if TYPE_CHECKING:
    from polydit.molgen.gfmdiff.network import DualTrackTransformer

__all__ = ["PolynomialSchedule", "sample_molecules"]

_SMALLEST_RATIO = 0.001  # of α² between two steps


@dataclass(frozen=True, slots=True)
class PolynomialSchedule:
    """α² = (1 - 2s) (1 - (t/T)²)² + s, with the ratio of two steps at least 0.001 ("polynomial_2").

    Args:
        steps: T.
        precision: s, so that no level is quite clean or quite noise.
    """

    steps: int = 500
    precision: float = 1e-5

    def gammas(self) -> Float[Tensor, " t"]:
        """-log(α²/σ²) at 0, 1, ..., T: from nearly data to nearly noise."""
        levels = np.linspace(0, self.steps + 1, self.steps + 1) / (self.steps + 1)
        alphas2 = np.concatenate([[1.0], (1 - levels**2) ** 2])
        alphas2 = np.cumprod(np.clip(alphas2[1:] / alphas2[:-1], _SMALLEST_RATIO, 1.0))
        alphas2 = (1 - 2 * self.precision) * alphas2 + self.precision
        return torch.from_numpy(-(np.log(alphas2) - np.log(1 - alphas2))).float()


def alpha(gamma: Tensor) -> Tensor:
    """Signal level √sigmoid(-γ)."""
    return torch.sigmoid(-gamma).sqrt()


def sigma(gamma: Tensor) -> Tensor:
    """Noise level √sigmoid(γ)."""
    return torch.sigmoid(gamma).sqrt()


@torch.no_grad()
def sample_molecules(
    network: DualTrackTransformer, num_atoms: Sequence[int], *, steps: int = 500, seed: int = 0
) -> list[Structure]:
    """Generates molecules by ancestral sampling. Costs seconds per step and molecule at the published size.

    Args:
        network: Trained on QM9's five elements.
        num_atoms: Atoms of each molecule.
        steps: T; the published network was trained with 500.
        seed: Of the CPU generator that draws all noise.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    mask = padding_of(torch.tensor(num_atoms), max(num_atoms)).float().to(network.device)
    features = network.config.num_types + 2
    gammas = PolynomialSchedule(steps).gammas().to(network.device)

    state = _noise(mask, features, generator)
    for step in range(steps, 0, -1):
        predicted = network(state, torch.full_like(mask[:, 0], step / steps), mask)
        state = _step_back(
            state, predicted, gammas[step], gammas[step - 1], _noise(mask, features, generator)
        )
        state = torch.cat([centred(state[..., :3], mask.bool()), state[..., 3:]], dim=-1)
    predicted = network(state, torch.zeros_like(mask[:, 0]), mask)
    # p(x | z₀): the estimate of the data, with noise of the last level's width
    data = (state - sigma(gammas[0]) * predicted) / alpha(gammas[0])
    data = data + sigma(gammas[0]) / alpha(gammas[0]) * _noise(mask, features, generator)
    return _to_structures(data, num_atoms)


def _step_back(state: Tensor, predicted: Tensor, now: Tensor, before: Tensor, noise: Tensor) -> Tensor:
    """z_s from z_t: z_t/α_ts - σ²_ts/(α_ts σ_t) ε̂ + (σ_ts σ_s/σ_t) ε."""
    variance = -torch.expm1(F.softplus(before) - F.softplus(now))
    ratio = alpha(now) / alpha(before)
    mean = state / ratio - variance / (ratio * sigma(now)) * predicted
    return mean + variance.sqrt() * sigma(before) / sigma(now) * noise


def _noise(mask: Float[Tensor, "b n"], features: int, generator: torch.Generator) -> Float[Tensor, "b n f"]:
    """Standard normal, mean-free over atoms in the positions, zero in padding."""
    noise = torch.randn(*mask.shape, 3 + features, generator=generator).to(mask.device) * mask[..., None]
    return torch.cat([centred(noise[..., :3], mask.bool()), noise[..., 3:]], dim=-1)


def _to_structures(data: Float[Tensor, "b n f"], num_atoms: Sequence[int]) -> list[Structure]:
    """Positions in Å and the most likely of the five elements; atomic number and degree only help the network."""
    positions = data[..., :3].double().cpu().numpy()
    types = data[..., 3 : 3 + len(QM9_TYPES)].argmax(-1).cpu().numpy()
    elements = np.array(QM9_TYPES)
    return [
        Structure(id=f"gfmdiff_{i}", numbers=elements[types[i, :n]], positions=positions[i, :n])
        for i, n in enumerate(num_atoms)
    ]
