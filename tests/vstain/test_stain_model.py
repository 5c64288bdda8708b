"""The network: two denoisers on one encoder, local everywhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from polydit.vstain.model import StainDiT


def inputs(side: int, tiles: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "he": torch.rand(tiles, 3, side, side) * 2 - 1,
        "image": torch.randn(tiles, 3, side, side),
        "mask": torch.randn(tiles, 1, side, side),
        "timestep": torch.arange(tiles) * 300 + 100,
        "stain": torch.arange(tiles) % 2,
    }


def test_both_denoisers_answer_for_every_pixel(tiny_network: Callable[..., StainDiT]) -> None:
    found = tiny_network()(**inputs(40))
    assert found.image.shape == (2, 3, 40, 40)
    assert found.mask is not None
    assert found.mask.shape == (2, 1, 40, 40)


@torch.no_grad()
def test_the_mask_can_be_left_out_and_changes_nothing(tiny_network: Callable[..., StainDiT]) -> None:
    network, given = tiny_network(), inputs(32)
    alone = network(**{**given, "mask": None})
    assert alone.mask is None
    torch.testing.assert_close(alone.image, network(**given).image)


@torch.no_grad()
def test_the_denoisers_meet_in_the_encoder_alone(tiny_network: Callable[..., StainDiT]) -> None:
    network, given = tiny_network(), inputs(32)
    before = network(**given)
    after = network(**{**given, "image": torch.randn_like(given["image"])})
    assert before.mask is not None and after.mask is not None
    torch.testing.assert_close(after.mask, before.mask)
    other_tissue = network(**{**given, "he": -given["he"]})
    assert other_tissue.mask is not None
    assert not torch.allclose(other_tissue.mask, before.mask, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("name", ["stain", "timestep"])
def test_stain_and_time_matter(tiny_network: Callable[..., StainDiT], name: str) -> None:
    network, given = tiny_network(), inputs(32)
    before = network(**given)
    after = network(**{**given, name: given[name].flip(0)})
    assert not torch.allclose(after.image, before.image, atol=1e-3)
    assert before.mask is not None and after.mask is not None
    assert not torch.allclose(after.mask, before.mask, atol=1e-3)


@torch.no_grad()
def test_a_place_depends_on_its_surroundings_and_not_on_the_tile(
    tiny_network: Callable[..., StainDiT],
) -> None:
    """Blocks of the encoder, then self- and cross-attention: each reaches two tokens of 8 pixels to each side."""
    network, given = tiny_network(), inputs(160)
    whole = network(**given).image
    cut = {name: value[..., 24:, 16:] if value.ndim == 4 else value for name, value in given.items()}
    reach = 3 * 2 * 8
    torch.testing.assert_close(
        network(**cut).image[..., reach:, reach:],
        whole[..., 24 + reach :, 16 + reach :],
        atol=1e-5,
        rtol=1e-4,
    )


@torch.no_grad()
def test_a_hidden_tissue_is_the_same_whatever_it_was(tiny_network: Callable[..., StainDiT]) -> None:
    network, given = tiny_network(), inputs(32)
    hidden = torch.ones(2)
    one = network(**given, dropped=hidden).image
    other = network(**{**given, "he": -given["he"]}, dropped=hidden).image
    torch.testing.assert_close(one, other)
    assert not torch.allclose(one, network(**given).image, atol=1e-3)


@torch.no_grad()
def test_a_network_without_masks(tiny_network: Callable[..., StainDiT]) -> None:
    network = tiny_network(mask_depth=0)
    assert network.mask is None
    assert network(**inputs(32)).mask is None
