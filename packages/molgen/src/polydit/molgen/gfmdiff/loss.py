"""GFMDiff's geometric loss: the number of bonds that predicted atoms form should be the number that they have.

A bond is inferred from a distance, as in EDM's tables (Xu et al. 2024, "Geometric-Facilitated Loss"). The
expected number of neighbours of atom i under the predicted element probabilities P is

    degree_i = Σ_j Σ_ac P_ia P_jc [ |x_i - x_j| < reach_ac ]

Shapes: b molecules, n atom slots, k element types.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

__all__ = ["count_neighbours", "geometric_loss", "published_error"]

QM9_TYPES: tuple[int, ...] = (1, 6, 7, 8, 9)  # H, C, N, O, F: the published order of the one-hot channels
# Å; over about this distance a bond fades. The tables reach 0.1 Å beyond a typical bond, which so counts 0.97.
_SOFTNESS = 0.03
_TYPE_NORM, _DEGREE_NORM = 4.0, 10.0  # the published state holds types / 4 and degrees / 10


def geometric_loss(
    positions_angstrom: Float[Tensor, "b n 3"],
    type_probabilities: Float[Tensor, "b n k"],
    mask: Float[Tensor, "b n"],
    degrees: Float[Tensor, "b n"],
) -> Float[Tensor, " b"]:
    """Squared error of the expected number of neighbours, averaged over the atoms of each molecule.

    An optional training term for any network whose prediction can be turned into positions. It must be given *denoised*
    positions. The published training applies the same rule to the predicted noise: distances between noise vectors say
    nothing about bonds, so there the term only pulls the degree channel toward a number without meaning
    (`published_error` keeps that, for comparison). The step at the bond's reach is softened by a sigmoid, since a step
    has no gradient with respect to positions; at reach, half a bond counts.

    Args:
        positions_angstrom: Denoised positions in Å.
        type_probabilities: Over 5 types H, C, N, O, F, or over 100 by atomic number (0 = none).
        mask: 1 for atoms, 0 for padding.
        degrees: True numbers of neighbours, from `count_neighbours`.
    """
    numbers = QM9_TYPES
    if type_probabilities.shape[-1] != len(QM9_TYPES):
        numbers = _bonding_elements()
        type_probabilities = type_probabilities[..., list(numbers)]
    reach = _reaches(positions_angstrom, numbers)
    distances = _distances(positions_angstrom.float())[..., None, None]
    bonds = torch.sigmoid((reach - distances) / _SOFTNESS) * (reach > 0)
    expected = _expected_degrees(bonds, type_probabilities.float(), mask)
    return ((expected - degrees).square() * mask).sum(1) / mask.sum(1)


def count_neighbours(
    positions_angstrom: Float[Tensor, "b n 3"], numbers: Int[Tensor, "b n"], mask: Float[Tensor, "b n"]
) -> Float[Tensor, "b n"]:
    """How many atoms are bonded to each atom by EDM's tables, whatever the order; zero in padding.

    Args:
        positions_angstrom: Positions in Å.
        numbers: Atomic numbers.
        mask: 1 for atoms, 0 for padding.
    """
    reach = torch.from_numpy(_reach_table()).to(positions_angstrom)[numbers[:, :, None], numbers[:, None]]
    return ((_distances(positions_angstrom) < reach) * _pair_mask(mask)).sum(2)


def published_error(
    prediction: Float[Tensor, "b n 10"],
    noise: Float[Tensor, "b n 10"],
    alpha: Float[Tensor, " b"],
    mask: Float[Tensor, "b n"],
    *,
    degree_weight: float,
) -> Float[Tensor, " b"]:
    """The training error of the published code for QM9: squared error of the noise, and its geometric term.

    Args:
        prediction: Predicted noise on [position | 5 types | atomic number | degree].
        noise: The noise.
        alpha: Signal level α_t.
        mask: 1 for atoms, 0 for padding.
        degree_weight: Of the geometric term; 0.01 in training.
    """
    slots, channels = prediction.shape[1:]
    prediction, noise = prediction * mask[..., None], noise * mask[..., None]
    error = (prediction - noise).square().sum((1, 2)) / (slots * channels)
    probabilities = prediction[..., 3:-2].softmax(-1)
    distances = _distances(prediction[..., :3])[..., None, None]
    bonds = (distances < _reaches(prediction, QM9_TYPES)).to(prediction)
    degrees = _expected_degrees(bonds, probabilities, mask) * _TYPE_NORM / _DEGREE_NORM
    mismatch = ((degrees + noise[..., -1]) / 2 - prediction[..., -1]).square().sum(1)
    return error + degree_weight * mismatch * alpha / slots


def _expected_degrees(
    bonds: Float[Tensor, "b n n k k"], probabilities: Float[Tensor, "b n k"], mask: Float[Tensor, "b n"]
) -> Float[Tensor, "b n"]:
    """Σ_j Σ_ac P_ia P_jc bond_ijac over pairs of two atoms."""
    return torch.einsum("bijac,bia,bjc,bij->bi", bonds, probabilities, probabilities, _pair_mask(mask))


def _distances(positions: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n n"]:
    return torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")


def _pair_mask(mask: Float[Tensor, "b n"]) -> Float[Tensor, "b n n"]:
    return mask[:, :, None] * mask[:, None] * (1 - torch.eye(mask.shape[1], device=mask.device))


def _reaches(like: Tensor, numbers: tuple[int, ...]) -> Float[Tensor, "k k"]:
    index = list(numbers)
    return torch.from_numpy(_reach_table()[index][:, index]).to(like.device, torch.float32)


@cache
def _reach_table() -> np.ndarray:
    """Å below which two elements are bonded, by atomic numbers; 0 = never. The single bond reaches farthest."""
    # The tables come with RDKit, which training without this term does not need.
    from polydit.molgen.bonds import BOND_THRESHOLDS

    return BOND_THRESHOLDS[0] ** 0.5


@cache
def _bonding_elements() -> tuple[int, ...]:
    """Atomic numbers below 100 that the tables know."""
    return tuple(number for number, row in enumerate(_reach_table()[:100]) if row.any())
