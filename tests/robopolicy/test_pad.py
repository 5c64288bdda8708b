"""PAD: who sees whom, one clock, the learned variance, sampling, pictures, published files, the start from DiT."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from polydit.core.errors import CheckpointError, InputError
from polydit.core.models.dit import DiT
from polydit.core.nn import Groups
from polydit.core.nn.embeddings import sincos_grid
from polydit.core.objectives import GaussianDiffusion
from polydit.robopolicy.batch import ActionModel, PolicyBatch
from polydit.robopolicy.pad.convert import init_from_dit, read_pad
from polydit.robopolicy.pad.network import Modalities, PADTransformer
from polydit.robopolicy.pad.objective import JointDiffusion, respaced_times, variance_bound
from polydit.robopolicy.pad.policy import PADPolicy, load_encoder, pooled

SMALL: dict[str, Any] = {
    "sample_size": 16, "patch_size": 4, "in_channels": 3, "future_frames": 2, "horizon": 4, "action_dim": 2,
    "state_dim": 3, "text_dim": 5, "width": 32, "depth": 2, "heads": 4,
}  # fmt: skip
DEPTH: dict[str, Any] = {"depth_map_size": 16, "depth_map_patch": 8}


def network(*, random: bool = True, **changes: Any) -> PADTransformer:
    """A small network, with weights that make every part matter."""
    torch.manual_seed(0)
    model = PADTransformer(**{**SMALL, **changes}).eval()
    if random:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def batch(items: int = 3, *, seed: int = 0, **changes: Any) -> PolicyBatch:
    """Observations and what follows them."""
    g = torch.Generator().manual_seed(seed)
    filled: dict[str, Any] = {
        "state": torch.randn(items, 6, generator=g),
        "language": torch.randn(items, 2, 5, generator=g),
        "language_mask": torch.tensor([[True, False]]).repeat(items, 1),
        "control_frequency": torch.full((items,), 20.0),
        "images": torch.rand(items, 1, 3, 16, 16, generator=g),
        "actions": torch.randn(items, 4, 2, generator=g),
        "action_is_pad": torch.zeros(items, 4, dtype=torch.bool),
        "future_images": torch.rand(items, 2, 3, 16, 16, generator=g),
    }
    return PolicyBatch(**{**filled, **changes})


def part(items: int = 2, seed: int = 3, **there: bool) -> tuple[Modalities, Modalities]:
    """Noisy futures and the present, for calls of the network itself."""
    g = torch.Generator().manual_seed(seed)
    noisy = {
        "images": torch.randn(items, 2, 3, 16, 16, generator=g),
        "actions": torch.randn(items, 4, 2, generator=g),
        "depth_maps": torch.randn(items, 2, 16, 16, generator=g),
    }
    now = {
        "images": torch.randn(items, 1, 3, 16, 16, generator=g),
        "actions": torch.randn(items, 1, 3, generator=g),
        "depth_maps": torch.randn(items, 1, 16, 16, generator=g),
    }
    return Modalities(**{k: v for k, v in noisy.items() if there.get(k, True)}), Modalities(**now)


TIMES = torch.tensor([10, 900])
TEXT = torch.linspace(-1, 1, 10).reshape(2, 5)


def call(
    model: PADTransformer, noisy: Modalities, now: Modalities, present: Mapping[str, Tensor] | None = None
) -> Modalities:
    """The prediction without gradients."""
    with torch.no_grad():
        return model(noisy, now, TIMES, TEXT, present)[0]


# ---------------------------------------------------------------------------------------------------------
# Who sees whom


def test_groups_attend_as_their_table_says() -> None:
    sees = torch.tensor([[[True, False], [True, True]], [[True, True], [False, True]]])
    mask = Groups(torch.tensor([0, 0, 1]), sees).mask()
    assert mask.int().tolist() == [
        [[[1, 1, 0], [1, 1, 0], [1, 1, 1]]],
        [[[1, 1, 1], [1, 1, 1], [0, 0, 1]]],
    ]


def test_frames_see_only_frames_and_actions_see_everything() -> None:
    noisy, now = part()
    model, open_model = network(**DEPTH), network(**DEPTH, frames_see_all=True)
    moved = replace(noisy, actions=noisy["actions"] + 1.0)
    deeper = replace(noisy, depth_maps=noisy["depth_maps"] + 1.0)
    plain = call(model, noisy, now)
    assert torch.equal(call(model, moved, now)["images"], plain["images"])
    assert torch.equal(call(model, deeper, now)["images"], plain["images"])
    assert not torch.allclose(call(open_model, moved, now)["images"], call(open_model, noisy, now)["images"])
    assert not torch.allclose(call(model, deeper, now)["actions"], plain["actions"], atol=1e-4)
    dreamt = replace(noisy, images=noisy["images"] + 1.0)
    assert not torch.allclose(call(model, dreamt, now)["actions"], plain["actions"], atol=1e-4)


@pytest.mark.parametrize("frames_see_all", [False, True])
def test_a_missing_modality_is_not_seen(frames_see_all: bool) -> None:
    """An item that lacks depth maps is predicted as if the network were called without them."""
    model = network(**DEPTH, frames_see_all=frames_see_all)
    noisy, now = part()
    some = call(model, noisy, now, {"depth_maps": torch.tensor([True, False])})
    every, none = call(model, noisy, now), call(model, part(depth_maps=False)[0], now)
    for name in ("images", "actions"):
        torch.testing.assert_close(some[name][0], every[name][0])
        torch.testing.assert_close(some[name][1], none[name][1])
    assert not torch.allclose(every["actions"][1], none["actions"][1], atol=1e-4)


def test_missing_frames_are_zeros() -> None:
    model = network()
    noisy, now = part(depth_maps=False)
    black = replace(noisy, images=noisy["images"] * torch.tensor([1.0, 0.0])[:, None, None, None, None])
    some = call(model, noisy, now, {"images": torch.tensor([True, False])})
    torch.testing.assert_close(some["actions"], call(model, black, now)["actions"])
    left_out = call(model, part(images=False, depth_maps=False)[0], now)
    torch.testing.assert_close(left_out["actions"][1], some["actions"][1])
    assert [name for name, _ in left_out.items()] == ["actions"]


@pytest.mark.parametrize("tokens", [1, 2, 4])
def test_actions_in_one_token_or_several_keep_their_shape(tokens: int) -> None:
    noisy, now = part(depth_maps=False)
    model = network(action_tokens=tokens, learned_positions=tokens == 4)
    value, variance = model(noisy, now, TIMES, TEXT)
    for made in (value, variance):
        assert {name: x.shape for name, x in made.items()} == {name: x.shape for name, x in noisy.items()}
    assert ("actions.positions" in model.state_dict()) == (tokens == 4)


def test_untrained_network_predicts_zero() -> None:
    noisy, now = part()
    for _, x in call(network(random=False, **DEPTH), noisy, now).items():
        assert not x.any()


def test_published_size_has_the_published_count() -> None:
    """677.4 M, counted on the published program, which counts the fixed positions of 256 patches and a token too."""
    with torch.device("meta"):
        model = PADTransformer()
    assert round((model.num_parameters() + 257 * 1152) / 1e6, 1) == 677.4


def test_saved_network_is_the_same(tmp_path: Path) -> None:
    model = network(**DEPTH, learned_positions=True)
    model.save_pretrained(tmp_path)
    again = PADTransformer.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    noisy, now = part()
    for name, x in call(model, noisy, now).items():
        assert torch.equal(call(again, noisy, now)[name], x)


def test_bf16_weights_agree_with_float32() -> None:
    exact, rough = network(), torch.nn.Module.to(network(), torch.bfloat16)
    noisy, now = part(depth_maps=False)
    for name, x in call(rough, noisy, now).items():
        torch.testing.assert_close(x.float(), call(exact, noisy, now)[name], atol=0.1, rtol=0.1)
        assert x.dtype == torch.bfloat16
    actions = PADPolicy(rough).sample(batch(), torch.zeros(3, 4, 2), 3)
    assert actions.dtype == torch.float32 and actions.isfinite().all()


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="patches of 5 do not divide pictures of 16"):
        network(patch_size=5)
    with pytest.raises(ValueError, match="4 actions do not fill 3 tokens"):
        network(action_tokens=3)
    with pytest.raises(ValueError, match="depth maps of 3 x 3 patches do not fit"):
        network(depth_map_size=24, depth_map_patch=8)


# ---------------------------------------------------------------------------------------------------------
# The objective


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
def test_variance_bound_is_the_divergence_of_the_two_steps(prediction: Any) -> None:
    """Against torch.distributions, in bits."""
    diffusion = GaussianDiffusion.linear(1000, prediction)
    generator = torch.Generator().manual_seed(0)
    x, noise, v = (torch.randn(5, 3, 4, generator=generator).double() for _ in range(3))
    t = torch.tensor([0, 1, 30, 500, 999])
    x_t, right = diffusion.noisy(x, noise, t), diffusion.target(x, noise, t)
    guess = right + 0.01 * torch.randn(x.shape, generator=generator).double()
    true = diffusion.posterior(x, x_t, t)
    made = diffusion.posterior(diffusion.data_from(guess, x_t, t), x_t, t, v)
    steps = [Normal(step.mean, (0.5 * step.log_variance).exp()) for step in (true, made)]
    expected = kl_divergence(*steps) / np.log(2.0)
    torch.testing.assert_close(variance_bound(diffusion, (guess - right).square(), v, t), expected)


def test_variance_learns_how_wrong_the_prediction_is_without_moving_it() -> None:
    diffusion, t = GaussianDiffusion.linear(), torch.full((1,), 400)
    error = torch.full((1, 1), 0.5, requires_grad=True)
    v = torch.full((1, 1), -1.0, requires_grad=True)
    exact = variance_bound(diffusion, torch.zeros(1, 1), v.detach(), t)
    assert exact.item() == pytest.approx(0.0, abs=1e-7)
    variance_bound(diffusion, error, v, t).sum().backward()
    assert error.grad is None
    assert v.grad is not None and v.grad.item() < 0  # descent widens the step


def exact_network(prediction: Any, data: Modalities) -> Any:
    """A network that knows the data."""
    diffusion = GaussianDiffusion.linear(1000, prediction)

    def call(noisy: Modalities, now: Modalities, t: Tensor, text: Tensor, present: Any = None) -> Any:
        noise = noisy.map(
            lambda name, x: (
                (x - diffusion.noisy(data[name], torch.zeros_like(x), t)) / _sigma(diffusion, t, x)
            )
        )
        value = data.map(lambda name, x: diffusion.target(x, noise[name], t))
        return value, data.map(lambda _, x: -torch.ones_like(x))

    return call


def _sigma(diffusion: GaussianDiffusion, t: Tensor, x: Tensor) -> Tensor:
    return diffusion.noisy(torch.zeros_like(x), torch.ones_like(x), t)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
@pytest.mark.parametrize("depth_maps", [True, False])
def test_knowing_the_data_costs_nothing_and_brings_it_back(prediction: Any, depth_maps: bool) -> None:
    data, now = part(depth_maps=depth_maps)
    objective, model = JointDiffusion(prediction=prediction), exact_network(prediction, data)
    terms = objective.loss(model, data, now, TEXT, torch.Generator().manual_seed(1))
    names = [name for name, _ in data.items()]
    assert set(terms) == {*names, *(f"{name}_mse" for name in names)}
    for name in names:
        assert terms[name].item() == pytest.approx(0.0, abs=1e-4)
    noise = data.map(lambda _, x: torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    made = objective.sample(model, noise, now, TEXT, 10, generators)
    for name, x in data.items():
        torch.testing.assert_close(made[name], x, atol=2e-3, rtol=0.0)


def test_variance_out_of_range_counts_as_its_bound() -> None:
    """A network that is hardly trained says v = 20 where v mattered little; its steps must not explode."""
    data, now = part(depth_maps=False)
    exact, made = exact_network("sample", data), {}
    for v in (1.0, 20.0):

        def model(*given: Any, v: float = v) -> tuple[Modalities, Modalities]:
            value, variance = exact(*given)
            return value, variance.map(lambda _, x: torch.full_like(x, v))

        noise = data.map(lambda _, x: torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        made[v] = JointDiffusion(prediction="sample").sample(model, noise, now, TEXT, 2, generators)
    assert torch.equal(made[1.0]["actions"], made[20.0]["actions"])


def test_respaced_times_are_those_of_published_dit() -> None:
    assert respaced_times(5).tolist() == [0, 250, 500, 749, 999]  # 499.5 and 749.25, ties to even
    assert len(set(respaced_times(50).tolist())) == 50


# ---------------------------------------------------------------------------------------------------------
# The policy


def test_policy_is_an_action_model() -> None:
    policy = PADPolicy(network())
    assert isinstance(policy, ActionModel)
    assert (policy.horizon, policy.action_dim, policy.num_steps) == (4, 2, 50)


def test_first_future_frame_is_not_the_present_one() -> None:
    assert PADPolicy(network(frame_skip=3)).future_offsets == (3, 6)
    assert PADPolicy(network(joint=False)).future_offsets == ()


def test_sampling_an_item_does_not_depend_on_its_batch() -> None:
    policy, whole = PADPolicy(network(prediction="sample")), batch(3)
    noise = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(4))
    together = policy.sample(whole, noise, 6)
    assert torch.equal(together, policy.sample(whole, noise, 6))
    second = PolicyBatch(**{field.name: getattr(whole, field.name)[1:2] for field in fields(whole)})
    alone = policy.sample(second, noise[1:2], 6)
    torch.testing.assert_close(alone, together[1:2], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(policy.sample(whole, noise + 1e-3, 6), together, atol=1e-2)


def test_policy_without_joint_denoising_never_looks_at_future_pictures() -> None:
    policy = PADPolicy(network(joint=False))
    seen, blind = batch(), batch(future_images=None)
    losses = [policy.loss(b, torch.Generator().manual_seed(0)) for b in (seen, blind)]
    assert set(losses[0]) == {"loss", "actions", "actions_mse"}
    assert torch.equal(losses[0]["loss"], losses[1]["loss"])
    with pytest.raises(InputError, match="trained on actions alone"):
        policy.imagine(blind, torch.zeros(3, 4, 2))


def test_padded_actions_do_not_count_and_a_video_teaches_frames_only() -> None:
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


def test_loss_of_padded_actions_is_the_mean_over_the_others() -> None:
    """With a network that predicts zero, the error is the noise itself."""
    policy, pad = PADPolicy(network(random=False)), torch.zeros(3, 4, dtype=torch.bool)
    pad[:, 1:] = True
    terms = policy.loss(batch(action_is_pad=pad), torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    torch.randint(1000, (3,), generator=generator)
    torch.randn(3, 2, 3, 16, 16, generator=generator)
    noise = torch.randn(3, 4, 2, generator=generator)
    assert terms["actions_mse"].item() == pytest.approx(noise[:, :1].square().mean().item())


def test_instruction_of_one_token_is_that_token() -> None:
    given = batch()
    assert torch.equal(pooled(given.language, given.language_mask), given.language[:, 0])
    both = pooled(given.language, torch.ones(3, 2, dtype=torch.bool))
    torch.testing.assert_close(both, given.language.mean(1))
    assert not pooled(given.language, torch.zeros(3, 2, dtype=torch.bool)).any()


def test_only_the_known_part_of_the_state_is_seen() -> None:
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
def test_a_batch_that_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PADPolicy(network()).loss(batch(**changes), torch.Generator())


def test_steps_and_networks_that_do_not_fit_are_named() -> None:
    with pytest.raises(InputError, match="1 steps"):
        PADPolicy(network()).sample(batch(), torch.zeros(3, 4, 2), 1)
    with pytest.raises(InputError, match="depth_maps"):
        PADPolicy(network(**DEPTH))
    with pytest.raises(InputError, match="denoises images; expected images and actions"):
        PADPolicy(network(horizon=0))


def test_policy_learns_actions_and_pictures() -> None:
    """A picture is one grey; the future is the same grey, and every action is its distance from the middle."""
    torch.manual_seed(0)
    model = PADTransformer(**{**SMALL, "sample_size": 8, "prediction": "sample", "state_dim": 0})
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


def test_pictures_go_through_the_autoencoder(autoencoder: Path) -> None:
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


def test_a_missing_autoencoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="autoencoder cannot be read"):
        PADPolicy(network(), tmp_path / "nothing")


# ---------------------------------------------------------------------------------------------------------
# Published files and the start from DiT


def published(width: int = 48) -> dict[str, Tensor]:
    """A state dict of the published program: 2 blocks, frames and depth maps, learned positions of 3 actions."""
    generator = torch.Generator().manual_seed(0)

    def layer(name: str, *shape: int) -> dict[str, Tensor]:
        return {
            f"{name}.weight": 0.1 * torch.randn(*shape, generator=generator),
            f"{name}.bias": 0.1 * torch.randn(shape[0], generator=generator),
        }

    state: dict[str, Tensor] = {
        "a_pos_embed": torch.randn(1, 3, width, generator=generator),
        "d_pos_embed": sincos_grid((4, 4), width).unflatten(0, (4, 4))[::2, ::2].reshape(1, 4, width),
        "pos_embed": sincos_grid((4, 4), width)[None],
        **layer("x_embedder.proj", width, 12, 2, 2),
        **layer("t_embedder.mlp.0", width, 256),
        **layer("t_embedder.mlp.2", width, width),
        **layer("a_embedder", width, 7),
        **layer("d_embedder.proj", width, 3, 4, 4),
        **layer("y_embedder.embedding_table", width, 512),
    }
    for n in range(2):
        state |= layer(f"blocks.{n}.attn.qkv", 3 * width, width) | layer(
            f"blocks.{n}.attn.proj", width, width
        )
        state |= layer(f"blocks.{n}.mlp.fc1", 4 * width, width) | layer(
            f"blocks.{n}.mlp.fc2", width, 4 * width
        )
        state |= layer(f"blocks.{n}.adaLN_modulation.1", 6 * width, width)
    outputs = {"": 2 * 2 * 4 * 2 * 2, "a_": 2 * 7, "d_": 4 * 4 * 2 * 2}
    for head, channels in outputs.items():
        state |= layer(f"final_layer.{head}linear", channels, width)
        state |= layer(f"final_layer.{head}adaLN_modulation.1", 2 * width, width)
    return state


def saved(folder: Path, state: Mapping[str, Tensor], **arguments: Any) -> Path:
    """As the published programs save it."""
    path = folder / "0030000.pt"
    torch.save({"model": dict(state), "args": argparse.Namespace(**arguments)}, path)
    return path


def test_published_file_is_read_with_its_sizes(tmp_path: Path) -> None:
    state = published()
    model = read_pad(saved(tmp_path, state, model="DiT-S/2", attn_mask=True, lr=1e-4))
    read = {name: model.config[name] for name in SMALL if name in model.config}
    assert read == {
        "sample_size": 8, "patch_size": 2, "in_channels": 4, "future_frames": 2, "horizon": 3, "action_dim": 7,
        "state_dim": 0, "text_dim": 512, "width": 48, "depth": 2, "heads": 6,
    }  # fmt: skip
    assert (model.config.depth_map_size, model.config.depth_map_patch) == (8, 4)
    assert (model.config.action_tokens, model.config.learned_positions, model.config.frames_see_all) == (
        3,
        True,
        False,
    )
    assert torch.equal(model.state_dict()["actions.positions"], state["a_pos_embed"][0])
    assert model.names == ("images", "actions", "depth_maps")
    assert read_pad(saved(tmp_path, state, attn_mask=False), heads=4).config.frames_see_all
    alone = {
        k: v for k, v in state.items() if not k.startswith(("a_", "d_", "final_layer.a_", "final_layer.d_"))
    }
    assert read_pad(saved(tmp_path, alone, attn_mask=True), heads=4).names == ("images",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.weight": torch.ones(1)}, r"unknown entries encoder\.weight"),
        ({"a_embedder.bias": None}, r"actions\.linear\.bias is missing"),
        ({"pos_embed": None}, "pos_embed"),
        ({"blocks.1.adaLN_modulation.1.bias": None}, r"blocks\.1\.adaLN_modulation\.1\.bias is missing"),
        ({"blocks.0.attn.qkv.bias": torch.ones(3)}, r"blocks\.0\.attn\.qkv\.bias has shape \(3,\)"),
        ({"x_embedder.proj.weight": torch.ones(48, 8, 2, 2)}, "8 channels in and 8 out are no future frames"),
    ],
)
def test_a_published_file_that_does_not_fit_is_named(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    state = {k: v for k, v in {**published(), **change}.items() if v is not None}
    with pytest.raises(CheckpointError, match=message):
        read_pad(saved(tmp_path, state, model="DiT-S/2", attn_mask=True))


def test_arguments_that_tell_too_little_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not tell attn_mask"):
        read_pad(saved(tmp_path, published(), model="DiT-S/2"))
    with pytest.raises(CheckpointError, match="do not tell the number of heads"):
        read_pad(saved(tmp_path, published(), model="Other", attn_mask=True))
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of PAD"):
        read_pad(tmp_path / "other.pt")


class Harmful:
    """What runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 1",)


def test_a_file_with_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="system"):
        read_pad(saved(tmp_path, published(), model="DiT-S/2", attn_mask=True, extra=Harmful()))


def dit(**changes: Any) -> DiT:
    """A DiT of the small network's size."""
    sizes = {
        "sample_size": 4,
        "patch_size": 4,
        "in_channels": 3,
        "width": 32,
        "depth": 2,
        "heads": 4,
        "num_classes": 3,
    }
    torch.manual_seed(1)
    model = DiT(**{**sizes, **changes}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_from_dit_every_frame_is_denoised_as_dit_does_without_a_label() -> None:
    """One picture in one slot comes out of every frame's head as DiT's prediction and variance, channel by channel."""
    teacher, model = dit(sample_size=16), network()
    init_from_dit(model, teacher)
    torch.nn.init.zeros_(teacher.label_embed.weight)
    picture = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    noisy, now = part(depth_maps=False)
    for slot in range(2):
        frames = torch.zeros(2, 2, 3, 16, 16)
        frames[:, slot] = picture
        with torch.no_grad():
            expected = teacher(picture, TIMES, torch.zeros(2, dtype=torch.long)).sample.chunk(2, dim=1)
            made = model(replace(noisy, images=frames), now, TIMES, TEXT)
        for ours, theirs in zip(made, expected, strict=True):
            for frame in range(2):
                torch.testing.assert_close(ours["images"][:, frame], theirs, atol=1e-5, rtol=1e-5)


def test_a_dit_of_another_size_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"does not fit: width 64.*expected .*width 32"):
        init_from_dit(network(), dit(width=64))
    with pytest.raises(CheckpointError, match="learn_sigma False"):
        init_from_dit(network(), dit(learn_sigma=False))
