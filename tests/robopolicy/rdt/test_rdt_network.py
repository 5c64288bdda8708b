"""RDT's network: its published sizes, which conditions reach the actions, which do not count, which do not fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import PyramidAttentionBroadcastConfig
from torch import Tensor

from polydit.core.errors import InputError
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.rdt.convert import published_state
from polydit.robopolicy.rdt.network import RDT, SIZES
from polydit.robopolicy.rdt.policy import RDTPolicy
from polydit.robopolicy.rdt.positions import condition_positions

NetworkOf = Callable[..., RDT]
BatchOf = Callable[..., PolicyBatch]
NoiseOf = Callable[..., Tensor]


@pytest.mark.parametrize(("size", "entries", "millions"), [("rdt-1b", 618, 1228.3), ("rdt-170m", 324, 166.2)])
def test_published_sizes_have_the_published_entries(size: str, entries: int, millions: float) -> None:
    with torch.device("meta"):
        model = RDT(**SIZES[size])
    assert len(published_state(model)) == entries
    assert round(model.num_parameters() / 1e6, 1) == millions
    assert model.image_tokens == 4374


def test_an_untrained_network_predicts_zero(batch: BatchOf) -> None:
    policy = RDTPolicy(
        RDT(
            horizon=4, width=32, depth=3, heads=4, image_encoder="none", language_dim=8, max_language_tokens=6
        )
    )
    conditions = policy.observe(batch(state=128))
    predicted = policy.network(torch.randn(2, 4, 128), torch.tensor([999, 3]), conditions)
    assert torch.equal(predicted, torch.zeros(2, 4, 128))


def test_known_contexts_give_the_same_prediction(network: NetworkOf, batch: BatchOf, noise: NoiseOf) -> None:
    policy = RDTPolicy(network(image_encoder="patches", image_layout=(2, 2, 2), patch_size=4))
    conditions, t = policy.observe(batch(pictures=(2, 3, 8, 8))), torch.tensor([10, 800])
    with torch.no_grad():
        expected = policy.network(noise(), t, conditions)
        given = policy.network(noise(), t, conditions, policy.network.contexts(conditions))
    torch.testing.assert_close(given, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("state", lambda x: x + 1.0),
        ("state_mask", torch.zeros_like),
        ("action_mask", torch.zeros_like),
        ("control_frequency", torch.zeros_like),
        ("language", lambda x: x + 1.0),
        ("images", lambda x: 1.0 - x),
    ],
)
def test_every_condition_reaches_the_actions(
    network: NetworkOf, batch: BatchOf, noise: NoiseOf, field: str, change: Callable[[Tensor], Tensor]
) -> None:
    policy = RDTPolicy(network(image_encoder="patches", image_layout=(1, 2, 2), patch_size=4))
    conditions, t = policy.observe(batch(pictures=(1, 3, 8, 8))), torch.tensor([10, 800])
    changed = replace(conditions, **{field: change(getattr(conditions, field))})
    with torch.no_grad():
        difference = policy.network(noise(), t, changed) - policy.network(noise(), t, conditions)
    assert difference.abs().amax((1, 2)).min() > 1e-4


def test_language_padding_does_not_count(network: NetworkOf, batch: BatchOf, noise: NoiseOf) -> None:
    policy, given = RDTPolicy(network()), batch()
    other = replace(given, language=given.language.masked_fill(~given.language_mask[..., None], 50.0))
    torch.testing.assert_close(policy.sample(other, noise()), policy.sample(given, noise()))


def test_pictures_and_instructions_that_do_not_fit_are_named(
    network: NetworkOf, batch: BatchOf, noise: NoiseOf
) -> None:
    policy = RDTPolicy(network(image_encoder="patches", image_layout=(2, 2, 2), patch_size=4))
    with pytest.raises(ValueError, match=r"make 4 tokens, expected 8 = \(2, 2, 2\)"):
        policy.sample(batch(pictures=(1, 3, 8, 8)), noise())
    with pytest.raises(ValueError, match="needs pictures"):
        policy.sample(batch(), noise())
    long = replace(batch(), language=torch.zeros(2, 7, 8), language_mask=torch.ones(2, 7) > 0)
    with pytest.raises(ValueError, match="7 tokens, expected at most 6"):
        RDTPolicy(network()).sample(long, noise())
    with pytest.raises(InputError, match="6 numbers; expected 5"):
        RDTPolicy(network()).sample(batch(state=6), noise())
    with pytest.raises(ValueError, match="unknown image encoder 'dino'"):
        network(image_encoder="dino")


def test_positions_that_are_left_over_are_zero() -> None:
    table = condition_positions((2, 1, 3), 10)[0]  # two axes of more than one token: 4 channels each
    assert table.shape == (6, 10)
    assert torch.equal(table[:, 8:], torch.zeros(6, 2))
    assert torch.equal(table[0, :8], torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1]))
    assert torch.equal(table[:3, :4], table[:1, :4].expand(3, 4))


def test_the_network_is_saved_and_loaded_whole(
    network: NetworkOf, batch: BatchOf, noise: NoiseOf, tmp_path: Path
) -> None:
    model = network(image_encoder="patches", image_layout=(1, 2, 2), patch_size=4)
    model.save_pretrained(tmp_path)
    loaded = RDT.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    given = batch(pictures=(1, 3, 8, 8))
    assert torch.equal(
        RDTPolicy(loaded.eval()).sample(given, noise()), RDTPolicy(model).sample(given, noise())
    )


def test_gradient_checkpointing_changes_no_gradient(
    network: NetworkOf, batch: BatchOf, noise: NoiseOf
) -> None:
    def gradients(checkpointing: bool) -> list[Tensor | None]:
        policy = RDTPolicy(network().train())
        if checkpointing:
            policy.network.enable_gradient_checkpointing()
        given = replace(batch(), actions=noise())
        policy.loss(given, torch.Generator().manual_seed(0))["loss"].backward()
        return [parameter.grad for parameter in policy.network.parameters()]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        assert plain is not None
        torch.testing.assert_close(plain, checkpointed)


def test_diffusers_cache_skips_cross_attention(network: NetworkOf, batch: BatchOf, noise: NoiseOf) -> None:
    policy, timestep = RDTPolicy(network()), 0
    calls = []
    policy.network.blocks[0].cross.q.register_forward_hook(lambda *_: calls.append(timestep))
    conditions = policy.observe(batch())
    policy.network.enable_cache(
        PyramidAttentionBroadcastConfig(
            cross_attention_block_skip_range=2,
            cross_attention_timestep_skip_range=(-1, 1000),
            cross_attention_block_identifiers=("blocks",),
            current_timestep_callback=lambda: timestep,
        )
    )
    with torch.no_grad():
        for timestep in (999, 799, 599, 400):
            policy.network(noise(), torch.full((2,), timestep), conditions)
    assert len(calls) == 2
