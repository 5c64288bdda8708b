"""pix2pix's networks: shapes, what they depend on, and who learns from which error."""

from __future__ import annotations

import pytest
import torch

from polydit.vstain.baseline.networks import PatchCritic, UNetGenerator
from polydit.vstain.baseline.train import GanNetworks


@pytest.fixture(scope="module")
def networks() -> GanNetworks:
    """Small ones, with running statistics of a batch."""
    torch.manual_seed(0)
    networks = GanNetworks(UNetGenerator(width=8, depth=3, num_stains=2), PatchCritic(8, 2))
    networks(images(4), images(4), torch.tensor([0, 1, 0, 1]))
    return networks.eval()


def images(count: int, size: int = 64) -> torch.Tensor:
    """Noise in [-1, 1]."""
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(count)) * 2.0 - 1.0


def test_a_generator_makes_a_tile_of_any_size_it_divides(networks: GanNetworks) -> None:
    made = networks.generator(images(2, 40), torch.tensor([0, 1]))
    assert made.shape == (2, 3, 40, 40) and made.dtype == torch.float32
    assert networks.generator.multiple == 8
    assert bool((made.abs() <= 1.0).all())


def test_the_default_generator_is_as_large_as_our_network() -> None:
    assert 5.5e6 < UNetGenerator().num_parameters() < 6e6
    # published: 54.4 million for three input planes (two planes of stains more)
    assert UNetGenerator(width=64, depth=8).num_parameters() == pytest.approx(54.4e6, rel=1e-3)


def test_a_tile_does_not_depend_on_its_batch(networks: GanNetworks) -> None:
    he, stain = images(4), torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        together = networks.generator(he, stain)
        alone = torch.cat([networks.generator(he[k : k + 1], stain[k : k + 1]) for k in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_low_precision_makes_the_same_to_rounding(networks: GanNetworks) -> None:
    he, stain = images(2), torch.tensor([0, 1])
    with torch.no_grad():
        exact = networks.generator(he, stain)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = networks.generator(he, stain)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.05, rtol=0)


def test_the_stain_decides_what_is_made(networks: GanNetworks) -> None:
    he = images(1)
    with torch.no_grad():
        made = [networks.generator(he, torch.tensor([stain])) for stain in (0, 1)]
    assert float((made[0] - made[1]).abs().max()) > 1e-3


def test_a_score_of_the_critic_sees_70_pixels(networks: GanNetworks) -> None:
    critic, stain = networks.critic, torch.tensor([0])
    he, ihc = images(1, 128), images(1, 128).requires_grad_()
    scores = critic(he, ihc, stain)
    assert scores.shape == (1, 1, 14, 14)
    scores[0, 0, 7, 7].backward()
    seen = ihc.grad.abs().sum((0, 1)) > 0
    assert int(seen.any(0).sum()) == int(seen.any(1).sum()) == 70


def test_each_network_learns_from_its_own_error(networks: GanNetworks) -> None:
    he, ihc, stain = images(2), images(2).flip(0), torch.tensor([0, 1])

    def learners(name: str) -> set[str]:
        networks.zero_grad()
        networks(he, ihc, stain)[name].backward()
        return {key.split(".")[0] for key, value in networks.named_parameters() if value.grad is not None}

    assert learners("gan") == learners("l1") == {"generator"}
    assert learners("critic") == {"critic"}
    assert all(weight.requires_grad for weight in networks.parameters())
