"""GFMDiff's geometric loss, network and sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from polydit.core.errors import CheckpointError
from polydit.molgen.bonds import edm_bond_orders
from polydit.molgen.data.structure import Structure
from polydit.molgen.gfmdiff.diffusion import PolynomialSchedule, alpha, sample_molecules, sigma
from polydit.molgen.gfmdiff.loss import QM9_TYPES, count_neighbours, geometric_loss
from polydit.molgen.gfmdiff.network import DualTrackTransformer, gfmdiff_from_published

METHANOL = Structure(
    id="methanol",
    numbers=np.array([6, 8, 1, 1, 1, 1]),
    positions=np.array(
        [
            [-0.047, 0.664, 0.0],
            [-0.047, -0.758, 0.0],
            [-1.093, 0.97, 0.0],
            [0.878, -1.071, 0.0],
            [0.438, 1.071, 0.891],
            [0.438, 1.071, -0.891],
        ]
    ),
)
NEIGHBOURS = [4.0, 2.0, 1.0, 1.0, 1.0, 1.0]
SMALL = {"width": 16, "hidden": 24, "depth": 2, "heads": 4}


def padded(*structures: Structure, slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, numbers and mask."""
    positions, numbers = (
        torch.zeros(len(structures), slots, 3),
        torch.zeros(len(structures), slots, dtype=torch.long),
    )
    for row, s in enumerate(structures):
        positions[row, : s.num_atoms] = torch.from_numpy(s.positions).float()
        numbers[row, : s.num_atoms] = torch.from_numpy(s.numbers)
    return positions, numbers, (numbers > 0).float()


def one_hot(numbers: Tensor, kinds: int) -> Tensor:
    """Certain types, over 5 elements or over 100 atomic numbers."""
    if kinds == 100:
        return torch.nn.functional.one_hot(numbers, 100).float()
    return (numbers[..., None] == torch.tensor(QM9_TYPES)).float()


def test_neighbours_are_those_of_the_bond_tables() -> None:
    positions, numbers, mask = padded(METHANOL, slots=8)
    counted = count_neighbours(positions, numbers, mask)
    assert counted.tolist() == [[*NEIGHBOURS, 0.0, 0.0]]
    assert counted[0, :6].tolist() == (edm_bond_orders(METHANOL) > 0).sum(1).tolist()


@pytest.mark.parametrize("kinds", [5, 100])
def test_a_right_molecule_has_little_loss_and_a_torn_one_much(kinds: int) -> None:
    positions, numbers, mask = padded(METHANOL, slots=8)
    degrees = count_neighbours(positions, numbers, mask)
    assert geometric_loss(positions, one_hot(numbers, kinds), mask, degrees).item() < 0.05
    torn = positions.clone()
    torn[0, 2] += torch.tensor([5.0, 0.0, 0.0])  # one hydrogen leaves: C has 3, H has 0 → (1 + 1) / 6
    assert geometric_loss(torn, one_hot(numbers, kinds), mask, degrees).item() == pytest.approx(
        2 / 6, abs=0.05
    )


def test_loss_of_an_item_knows_nothing_of_the_padding() -> None:
    positions, numbers, mask = padded(METHANOL, slots=6)
    degrees = torch.tensor([NEIGHBOURS]) + 0.5
    tight = geometric_loss(positions, one_hot(numbers, 5), mask, degrees)
    wide = padded(METHANOL, slots=11)
    padding = torch.nn.functional.pad(degrees, (0, 5))
    assert torch.allclose(tight, geometric_loss(wide[0], one_hot(wide[1], 5), wide[2], padding))


def test_gradient_pulls_a_stretched_bond_together() -> None:
    hydrogen = Structure(id="h2", numbers=np.array([1, 1]), positions=np.array([[0.0, 0, 0], [0.95, 0, 0]]))
    positions, numbers, mask = padded(hydrogen, slots=2)
    positions.requires_grad_()
    loss = geometric_loss(positions, one_hot(numbers, 5), mask, torch.ones(1, 2))
    loss.sum().backward()
    assert positions.grad is not None
    assert positions.grad[0, 1, 0] > 0 and positions.grad[0, 0, 0] < 0  # descent moves them toward each other
    assert positions.grad.isfinite().all()


def test_doubtful_types_count_by_their_probability() -> None:
    positions = torch.tensor([[[0.0, 0, 0], [1.3, 0, 0]]])  # bonded as C-C (1.64 Å), not as H-H (0.84 Å)
    certain = one_hot(torch.tensor([[6, 6]]), 5)
    mask, degrees = torch.ones(1, 2), torch.zeros(1, 2)
    doubtful = 0.5 * certain + 0.5 * one_hot(torch.tensor([[1, 1]]), 5)
    # expected neighbours: P(C, C) = 1/4, and C-H (1.19 Å) hardly counts at 1.3 Å
    share = geometric_loss(positions, doubtful, mask, degrees).sqrt().item()
    assert share == pytest.approx(0.25 + 0.5 / (1 + np.exp((1.3 - 1.19) / 0.03)), abs=1e-3)


def test_network_is_equivariant_and_blind_to_padding() -> None:
    torch.manual_seed(0)
    network = DualTrackTransformer(**SMALL).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state, times, mask = (
        torch.randn(2, 5, 10).double(),
        torch.tensor([0.3, 0.8]).double(),
        torch.ones(2, 5).double(),
    )
    mask[1, 3:] = 0
    rotation = torch.linalg.qr(torch.randn(3, 3).double())[0]
    turned = torch.cat([state[..., :3] @ rotation, state[..., 3:]], dim=-1)
    with torch.no_grad():
        plain, moved = network(state, times, mask), network(turned, times, mask)
    assert plain[..., :3].abs().max() > 0.01
    assert torch.allclose(plain[..., :3] @ rotation, moved[..., :3], atol=1e-6)
    assert torch.allclose(plain[..., 3:], moved[..., 3:], atol=1e-6)
    assert not plain[1, 3:].any()
    assert torch.allclose(plain[..., :3].sum(1), torch.zeros(2, 3).double(), atol=1e-9)


def test_published_size_has_the_published_count() -> None:
    """92.5 M parameters for 5 layers of width 256 (counted on the published program)."""
    with torch.device("meta"):
        count = DualTrackTransformer().num_parameters()
    assert round(count / 1e6, 1) == 92.5


def test_schedule_runs_from_data_to_noise() -> None:
    gammas = PolynomialSchedule(500).gammas()
    assert gammas.shape == (501,) and (gammas.diff() > 0).all()
    signal, noise = alpha(gammas), sigma(gammas)
    assert torch.allclose(signal**2 + noise**2, torch.ones(501))
    assert signal[0] > 0.9999 and noise[-1] > 0.9999
    middle = 250 / 501 * 501 / 500  # the grid runs to its last point, not one short of it
    assert signal[250].item() ** 2 == pytest.approx((1 - 2e-5) * (1 - middle**2) ** 2 + 1e-5, rel=1e-4)


def test_sampling_runs_and_repeats() -> None:
    torch.manual_seed(0)
    network = DualTrackTransformer(**SMALL).eval()
    first, second = (sample_molecules(network, [4, 6], steps=3, seed=5) for _ in range(2))
    assert [s.num_atoms for s in first] == [4, 6]
    for one, other in zip(first, second, strict=True):
        assert set(one.numbers.tolist()) <= set(QM9_TYPES)
        assert np.array_equal(one.positions, other.positions) and np.isfinite(one.positions).all()


def test_exact_noise_brings_the_data_back() -> None:
    """With the true noise as prediction, every step of the sampler stays on the path to the data."""

    class Oracle:
        config = DualTrackTransformer(**SMALL).config
        device = torch.device("cpu")

        def __init__(self, data: Tensor, steps: int) -> None:
            self.data, self.gammas, self.steps = data, PolynomialSchedule(steps).gammas(), steps

        def __call__(self, state: Tensor, times: Tensor, mask: Tensor) -> Tensor:
            gamma = self.gammas[round(times[0].item() * self.steps)]
            return (state - alpha(gamma) * self.data) / sigma(gamma)

    positions, numbers, _ = padded(METHANOL, slots=6)
    positions = positions - positions.mean(1, keepdim=True)
    data = torch.cat(
        [positions, one_hot(numbers, 5) / 4, numbers[..., None] / 10, torch.zeros(1, 6, 1)], dim=-1
    )
    (sampled,) = sample_molecules(Oracle(data, 50), [6], steps=50, seed=1)  # type: ignore[arg-type]
    assert sampled.numbers.tolist() == METHANOL.numbers.tolist()
    assert np.abs(sampled.positions - positions[0].numpy()).max() < 0.05


def test_another_kind_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"unknown entries x\.weight"):
        gfmdiff_from_published({"x.weight": torch.ones(1)}, heads=2)
