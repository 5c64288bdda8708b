"""PAD as a policy: how it samples, what its loss counts, what it refuses, and pictures through an autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from polydit.core.errors import CheckpointError, InputError
from polydit.robopolicy.batch import ActionModel, PolicyBatch
from polydit.robopolicy.pad.network import PADTransformer
from polydit.robopolicy.pad.policy import PADPolicy, load_encoder, pooled

NetworkOf = Callable[..., PADTransformer]
BatchOf = Callable[..., PolicyBatch]


def test_policy_is_an_action_model(network: NetworkOf) -> None:
    policy = PADPolicy(network())
    assert isinstance(policy, ActionModel)
    assert (policy.horizon, policy.action_dim, policy.num_steps) == (4, 2, 50)


def test_first_future_frame_is_not_the_present_one(network: NetworkOf) -> None:
    assert PADPolicy(network(frame_skip=3)).future_offsets == (3, 6)
    assert PADPolicy(network(joint=False)).future_offsets == ()


def test_sampling_an_item_does_not_depend_on_its_batch(network: NetworkOf, batch: BatchOf) -> None:
    policy, whole = PADPolicy(network(prediction="sample")), batch(3)
    noise = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(4))
    together = policy.sample(whole, noise, 6)
    assert torch.equal(together, policy.sample(whole, noise, 6))
    second = PolicyBatch(**{field.name: getattr(whole, field.name)[1:2] for field in fields(whole)})
    alone = policy.sample(second, noise[1:2], 6)
    torch.testing.assert_close(alone, together[1:2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(policy.sample(whole, noise + 1e-3, 6), together, atol=1e-2)


def test_policy_without_joint_denoising_never_looks_at_future_pictures(
    network: NetworkOf, batch: BatchOf
) -> None:
    policy = PADPolicy(network(joint=False))
    seen, blind = batch(), batch(future_images=None)
    losses = [policy.loss(b, torch.Generator().manual_seed(0)) for b in (seen, blind)]
    assert set(losses[0]) == {"loss", "actions", "actions_mse"}
    assert torch.equal(losses[0]["loss"], losses[1]["loss"])
    with pytest.raises(InputError, match="trained on actions alone"):
        policy.imagine(blind, torch.zeros(3, 4, 2))


def test_padded_actions_do_not_count_and_a_video_teaches_frames_only(
    network: NetworkOf, batch: BatchOf
) -> None:
    policy = PADPolicy(network())
    whole = batch()
    padded = torch.tensor([[False] * 4, [False, True, True, True], [True] * 4])
    some = policy.loss(batch(action_is_pad=padded), torch.Generator().manual_seed(0))
    torch.testing.assert_close(some["images"], policy.loss(whole, torch.Generator().manual_seed(0))["images"])
    video = policy.loss(
        batch(action_is_pad=torch.ones(3, 4, dtype=torch.bool)), torch.Generator().manual_seed(0)
    )
    assert video["actions"].item() == 0.0 and video["loss"].item() == video["images"].item()
    video["loss"].backward()
    assert policy.network.actions is not None
    assert not any(p.grad is not None and p.grad.any() for p in policy.network.actions.parameters())
    assert policy.network.final.linear.weight.grad.any()


def test_loss_of_padded_actions_is_the_mean_over_the_others(network: NetworkOf, batch: BatchOf) -> None:
    """With a network that predicts zero, the error is the noise itself."""
    policy, pad = PADPolicy(network(random=False)), torch.zeros(3, 4, dtype=torch.bool)
    pad[:, 1:] = True
    terms = policy.loss(batch(action_is_pad=pad), torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    torch.randint(1000, (3,), generator=generator)
    torch.randn(3, 2, 3, 16, 16, generator=generator)
    noise = torch.randn(3, 4, 2, generator=generator)
    assert terms["actions_mse"].item() == pytest.approx(noise[:, :1].square().mean().item())


def test_instruction_of_one_token_is_that_token(batch: BatchOf) -> None:
    given = batch()
    assert torch.equal(pooled(given.language, given.language_mask), given.language[:, 0])
    both = pooled(given.language, torch.ones(3, 2, dtype=torch.bool))
    torch.testing.assert_close(both, given.language.mean(1))
    assert not pooled(given.language, torch.zeros(3, 2, dtype=torch.bool)).any()


def test_only_the_known_part_of_the_state_is_seen(network: NetworkOf, batch: BatchOf) -> None:
    policy, noise = PADPolicy(network()), torch.ones(3, 4, 2)
    given = batch()
    hidden = given.state.clone()
    hidden[:, 3:] += 1.0
    assert torch.equal(policy.sample(replace(given, state=hidden), noise, 3), policy.sample(given, noise, 3))
    known = given.state.clone()
    known[:, 0] += 1.0
    assert not torch.allclose(
        policy.sample(replace(given, state=known), noise, 3), policy.sample(given, noise, 3)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": None}, "one camera, and the batch has 0"),
        ({"images": torch.rand(3, 2, 3, 16, 16)}, "one camera, and the batch has 2"),
        (
            {"images": torch.rand(3, 1, 3, 8, 8), "future_images": torch.rand(3, 2, 3, 8, 8)},
            r"\(8, 8\) pixels come to \(3, 8, 8\).*expected \(3, 16, 16\)",
        ),
        ({"state": torch.zeros(3, 2)}, "state has 2 numbers; expected at least 3"),
        ({"future_images": None}, r"has 0 future pictures; expected 2, at \(4, 8\) steps"),
        ({"future_images": torch.rand(3, 3, 3, 16, 16)}, "has 3 future pictures"),
        ({"actions": None}, "has no actions"),
    ],
)
def test_a_batch_that_does_not_fit_is_named(
    network: NetworkOf, batch: BatchOf, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        PADPolicy(network()).loss(batch(**changes), torch.Generator())


def test_steps_and_networks_that_do_not_fit_are_named(network: NetworkOf, batch: BatchOf) -> None:
    with pytest.raises(InputError, match="1 steps"):
        PADPolicy(network()).sample(batch(), torch.zeros(3, 4, 2), 1)
    with pytest.raises(InputError, match="depth_maps"):
        PADPolicy(network(depth_map_size=16, depth_map_patch=8))
    with pytest.raises(InputError, match="denoises images; expected images and actions"):
        PADPolicy(network(horizon=0))


def test_policy_learns_actions_and_pictures(network: NetworkOf, batch: BatchOf) -> None:
    """A picture is one grey; the future is the same grey, and every action is its distance from the middle."""
    model = network(random=False, sample_size=8, prediction="sample", state_dim=0).train()
    policy, generator = PADPolicy(model), torch.Generator().manual_seed(0)

    def grey(items: int) -> PolicyBatch:
        level = torch.rand(items, 1, 1, 1, 1, generator=generator)
        pictures = level.expand(-1, 2, 3, 8, 8)
        actions = (2.0 * level - 1.0).reshape(-1, 1, 1).expand(-1, 4, 2)
        return batch(items, images=pictures[:, :1], future_images=pictures, actions=actions,
                     action_is_pad=torch.zeros(items, 4, dtype=torch.bool))  # fmt: skip

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        policy.loss(grey(32), generator)["loss"].backward()
        optimizer.step()
    given = grey(16)
    assert given.actions is not None and given.future_images is not None
    noise = torch.randn(16, 4, 2, generator=generator)
    pictures, actions = policy.imagine(given, noise, 20)
    assert (actions - given.actions).abs().mean() < 0.15  # a guess without the picture is off by 0.5
    assert (pictures - given.future_images).abs().mean() < 0.1  # 0.25
    assert torch.equal(actions, policy.sample(given, noise, 20))


@pytest.fixture
def autoencoder(tmp_path: Path) -> Path:
    """A tiny one, in a folder."""
    torch.manual_seed(0)
    blocks = {"block_out_channels": (8, 8), "norm_num_groups": 4}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    AutoencoderKL(latent_channels=4, **blocks, **kinds).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def test_pictures_go_through_the_autoencoder(network: NetworkOf, batch: BatchOf, autoencoder: Path) -> None:
    model = network(sample_size=8, in_channels=4, patch_size=2)
    policy, vae, given = PADPolicy(model, autoencoder), load_encoder(autoencoder), batch()
    assert given.images is not None
    latents = vae.encode(2.0 * given.images[:, 0] - 1.0).latent_dist.mean * 0.18215
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[1]["images"]))
    pictures, actions = policy.imagine(given, torch.zeros(3, 4, 2), 3)
    torch.testing.assert_close(seen[0][:, 0], latents.detach())
    assert pictures.shape == (3, 2, 3, 16, 16) and pictures.min() >= 0.0 and pictures.max() <= 1.0
    assert actions.isfinite().all()
    assert policy.loss(given, torch.Generator().manual_seed(0))["loss"].isfinite()
    with pytest.raises(InputError, match="needs the folder of the autoencoder"):
        PADPolicy(model).sample(given, torch.zeros(3, 4, 2), 3)


def test_a_missing_autoencoder_is_named(network: NetworkOf, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="autoencoder cannot be read"):
        PADPolicy(network(), tmp_path / "nothing")
