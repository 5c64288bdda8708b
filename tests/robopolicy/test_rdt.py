"""RDT on tiny real networks: what the policy computes, what it learns, which checkpoints it reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import PyramidAttentionBroadcastConfig
from safetensors.torch import save_file

from polydit.core.errors import CheckpointError, InputError
from polydit.robopolicy.batch import ActionModel, PolicyBatch
from polydit.robopolicy.rdt.conditions import BACKGROUND, Conditions, Withholding
from polydit.robopolicy.rdt.convert import RDTConfig, policy_from_published, published_state, read_rdt
from polydit.robopolicy.rdt.network import RDT, SIZES
from polydit.robopolicy.rdt.policy import RDTPolicy
from polydit.robopolicy.rdt.positions import condition_positions

TINY: dict[str, Any] = {"horizon": 4, "width": 32, "depth": 3, "heads": 4}
STATE, ACTION, LANGUAGE = 5, 3, 8


def network(**changes: Any) -> RDT:
    """A network of random weights; an untrained one would predict zero."""
    torch.manual_seed(0)
    sizes = {"state_dim": STATE, "action_dim": ACTION, "language_dim": LANGUAGE, "max_language_tokens": 6}
    model = RDT(**{**TINY, **sizes, "image_encoder": "none", **changes}).eval()
    for parameter in model.head.mlp.fc2.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def batch(items: int = 2, *, state: int = STATE, pictures: tuple[int, ...] | None = None) -> PolicyBatch:
    generator = torch.Generator().manual_seed(7)
    tokens = torch.arange(3).expand(items, 3)
    return PolicyBatch(
        state=torch.randn(items, state, generator=generator),
        language=torch.randn(items, 3, LANGUAGE, generator=generator),
        language_mask=tokens < torch.tensor([3, 1] * items)[:items, None],
        control_frequency=torch.full((items,), 25.0),
        images=None if pictures is None else torch.rand(items, *pictures, generator=generator),
    )


def noise(items: int = 2, actions: int = ACTION) -> torch.Tensor:
    return torch.randn(items, 4, actions, generator=torch.Generator().manual_seed(9))


def rows(given: PolicyBatch, index: slice) -> PolicyBatch:
    """Some items of a batch."""
    values = {name: value[index] for name, value in vars(given).items() if value is not None}
    return PolicyBatch(**values)


# ---------------------------------------------------------------------------------------------------------
# The network


@pytest.mark.parametrize(("size", "entries", "millions"), [("rdt-1b", 618, 1228.3), ("rdt-170m", 324, 166.2)])
def test_published_sizes_have_the_published_entries(size: str, entries: int, millions: float) -> None:
    with torch.device("meta"):
        model = RDT(**SIZES[size])
    assert len(published_state(model)) == entries
    assert round(model.num_parameters() / 1e6, 1) == millions
    assert model.image_tokens == 4374


def test_an_untrained_network_predicts_zero() -> None:
    policy = RDTPolicy(RDT(**TINY, image_encoder="none", language_dim=LANGUAGE, max_language_tokens=6))
    conditions = policy.observe(batch(state=128))
    predicted = policy.network(torch.randn(2, 4, 128), torch.tensor([999, 3]), conditions)
    assert torch.equal(predicted, torch.zeros(2, 4, 128))


def test_known_contexts_give_the_same_prediction() -> None:
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
    field: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    policy = RDTPolicy(network(image_encoder="patches", image_layout=(1, 2, 2), patch_size=4))
    conditions, t = policy.observe(batch(pictures=(1, 3, 8, 8))), torch.tensor([10, 800])
    changed = replace(conditions, **{field: change(getattr(conditions, field))})
    with torch.no_grad():
        difference = policy.network(noise(), t, changed) - policy.network(noise(), t, conditions)
    assert difference.abs().amax((1, 2)).min() > 1e-4


def test_language_padding_does_not_count() -> None:
    policy, given = RDTPolicy(network()), batch()
    other = replace(given, language=given.language.masked_fill(~given.language_mask[..., None], 50.0))
    torch.testing.assert_close(policy.sample(other, noise()), policy.sample(given, noise()))


def test_pictures_and_instructions_that_do_not_fit_are_named() -> None:
    policy = RDTPolicy(network(image_encoder="patches", image_layout=(2, 2, 2), patch_size=4))
    with pytest.raises(ValueError, match=r"make 4 tokens, expected 8 = \(2, 2, 2\)"):
        policy.sample(batch(pictures=(1, 3, 8, 8)), noise())
    with pytest.raises(ValueError, match="needs pictures"):
        policy.sample(batch(), noise())
    long = replace(batch(), language=torch.zeros(2, 7, LANGUAGE), language_mask=torch.ones(2, 7) > 0)
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


def test_the_network_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    model = network(image_encoder="patches", image_layout=(1, 2, 2), patch_size=4)
    model.save_pretrained(tmp_path)
    loaded = RDT.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    given = batch(pictures=(1, 3, 8, 8))
    assert torch.equal(
        RDTPolicy(loaded.eval()).sample(given, noise()), RDTPolicy(model).sample(given, noise())
    )


def test_gradient_checkpointing_changes_no_gradient() -> None:
    def gradients(checkpointing: bool) -> list[torch.Tensor | None]:
        policy = RDTPolicy(network().train())
        if checkpointing:
            policy.network.enable_gradient_checkpointing()
        given = replace(batch(), actions=noise())
        policy.loss(given, torch.Generator().manual_seed(0))["loss"].backward()
        return [parameter.grad for parameter in policy.network.parameters()]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        assert plain is not None
        torch.testing.assert_close(plain, checkpointed)


def test_diffusers_cache_skips_cross_attention() -> None:
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


# ---------------------------------------------------------------------------------------------------------
# Sampling and training


def test_the_policy_is_an_action_model() -> None:
    policy = RDTPolicy(network())
    assert isinstance(policy, ActionModel)
    assert (policy.horizon, policy.action_dim, policy.num_steps) == (4, ACTION, 5)
    assert RDTPolicy(network(), solver="ddpm").num_steps == 100
    assert RDTPolicy(network(), **RDTPolicy(network(), num_steps=7).settings).num_steps == 7


@pytest.mark.parametrize(("solver", "steps"), [("dpm", 5), ("ddpm", 20)])
def test_an_item_gets_the_same_actions_in_any_batch(solver: Any, steps: int) -> None:
    policy, given = RDTPolicy(network(), solver=solver), batch(3)
    together = policy.sample(given, noise(3), steps)
    alone = policy.sample(rows(given, slice(1, 2)), noise(3)[1:2], steps)
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("steps", [0, 1001])
def test_step_counts_that_cannot_be_are_refused(steps: int) -> None:
    with pytest.raises(InputError, match=rf"{steps} steps; expected 1\.\.1000"):
        RDTPolicy(network()).sample(batch(), noise(), steps)


def test_unused_slots_stay_empty() -> None:
    policy = RDTPolicy(network(state_dim=None, action_dim=12), slots=[0, 3, 11])
    actions = policy.sample(batch(state=12), noise(actions=12))
    used = actions.abs().amax((0, 1)) > 0
    assert used.nonzero().flatten().tolist() == [0, 3, 11]
    with pytest.raises(ValueError, match="slot 12 is not among the network's 12"):
        RDTPolicy(policy.network, slots=[0, 12])


def test_the_loss_is_that_of_the_published_objective() -> None:
    policy = RDTPolicy(network(), withholding=Withholding(probability=0.0, state_snr=None))
    given = replace(batch(), actions=noise())
    draws = torch.Generator().manual_seed(3)
    loss = policy.loss(given, torch.Generator().manual_seed(3))["loss"]
    policy.withholding(policy.observe(given), draws)
    epsilon, t = torch.randn(2, 4, ACTION, generator=draws), torch.randint(1000, (2,), generator=draws)
    # ᾱ of the squared cosine (Nichol & Dhariwal 2021, equation 17) with β at most 0.999
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    alpha = torch.tensor(np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], 0.999)))[t][:, None, None]
    noisy = (alpha.sqrt() * noise() + (1 - alpha).sqrt() * epsilon).float()
    expected = (policy.network(noisy, t, policy.observe(given)) - noise()).square().mean()
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-4)


def test_both_solvers_give_the_actions_that_were_learned() -> None:
    """Actions that are a linear function of state and instruction, unlike for each item."""
    torch.manual_seed(0)
    model = network(depth=2)
    model.head.reset_parameters()  # as an untrained network begins
    policy = RDTPolicy(model.train(), withholding=Withholding(probability=0.02))
    state, language = torch.randn(32, STATE), torch.randn(32, 3, LANGUAGE)
    weights = torch.randn(STATE, ACTION) / STATE**0.5
    actions = (state @ weights)[:, None] * torch.tensor([1.0, 0.5, 0.0, -0.5])[:, None]
    given = PolicyBatch(
        state=state,
        language=language,
        language_mask=torch.ones(32, 3) > 0,
        control_frequency=torch.full((32,), 25.0),
        actions=actions,
    )
    optimizer, generator = torch.optim.AdamW(model.parameters(), lr=5e-3), torch.Generator().manual_seed(0)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 150)
        policy.loss(given, generator)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    for solver in RDTPolicy(model), RDTPolicy(model, solver="ddpm"):
        sampled = solver.sample(given, noise(32))
        assert (sampled - actions).square().mean() < 0.05 * actions.square().mean()


# ---------------------------------------------------------------------------------------------------------
# What training withholds


def conditions(items: int = 2) -> Conditions:
    return RDTPolicy(network(image_encoder="patches", image_layout=(2, 2, 2), patch_size=4)).observe(
        batch(items, pictures=(2, 3, 8, 8))
    )


def test_what_is_withheld_is_replaced_as_published() -> None:
    mean, empty = torch.arange(5.0), torch.full((LANGUAGE,), 3.0)
    withhold = Withholding(probability=1.0, state_mean=mean, empty_language=empty)
    got = withhold(conditions(), torch.Generator())
    assert torch.equal(got.state, mean.expand(2, 5))
    assert not got.state_mask.any()
    assert not got.action_mask.any()
    assert torch.equal(got.control_frequency, torch.zeros(2))
    assert torch.equal(got.language[:, 0], empty.expand(2, LANGUAGE))
    assert got.language_mask.tolist() == [[True, False, False]] * 2
    assert torch.equal(got.images, torch.full((2, 2, 3, 8, 8), BACKGROUND))


def test_nothing_is_withheld_without_need() -> None:
    given = conditions()
    got = Withholding(probability=0.0, state_snr=None)(given, torch.Generator())
    for name, value in vars(given).items():
        assert torch.equal(getattr(got, name), value), name


def test_conditions_are_withheld_independently_at_the_published_rate() -> None:
    got = Withholding(state_snr=None)(conditions(4000), torch.Generator().manual_seed(0))
    dropped = [
        got.state[:, 0] == 0.0,
        got.state_mask[:, 0] == 0.0,
        got.control_frequency == 0.0,
        got.language[:, 0].abs().amax(1) == 0.0,
        *(got.images[:, k, 0, 0, 0] == BACKGROUND for k in range(2)),
    ]
    together = torch.stack(dropped).float()
    assert (together.mean(1) - 0.1).abs().max() < 0.02
    correlation = torch.corrcoef(together) - torch.eye(len(dropped))
    assert correlation.abs().max() < 0.07


def test_noise_on_the_state_has_the_published_size_and_spares_unused_slots() -> None:
    given = replace(conditions(4000), state_mask=torch.tensor([1.0, 1, 1, 1, 0]).expand(4000, 5))
    std = torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0])
    got = Withholding(probability=0.0, state_std=std)(given, torch.Generator().manual_seed(0))
    measured = (got.state - given.state).std(0)
    torch.testing.assert_close(measured, torch.tensor([0.01, 0.02, 0.01, 0.01, 0.0]), atol=1e-3, rtol=0.0)


# ---------------------------------------------------------------------------------------------------------
# Published checkpoints

LAYOUT = (2, 3, -2)
DIFFUSION = {
    "type": "ddpm",
    "num_train_timesteps": 1000,
    "num_inference_timesteps": 3,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "sample",
    "clip_sample": False,
}


@pytest.fixture
def published() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State dict and config of a tiny policy in the published layout."""
    model = network(
        state_dim=None, action_dim=12, image_encoder="precomputed", image_layout=LAYOUT, image_dim=10
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    sections = {"rdt": {"hidden_size": 32, "depth": 3, "num_heads": 4}, "noise_scheduler": DIFFUSION}
    flat = {"img_pos_embed_config": [["image", list(LAYOUT)]], "pred_horizon": 4, **sections}
    return published_state(model), flat


def write(folder: Path, state: Any, config: Any, name: str = "pytorch_model.bin") -> Path:
    folder.mkdir(exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / name) if name.endswith((".bin", ".pt")) else save_file(state, folder / name)
    return folder


def test_all_forms_of_a_published_checkpoint_are_read(published: Any, tmp_path: Path) -> None:
    state, flat = published
    nested = {
        "img_pos_embed_config": flat["img_pos_embed_config"],
        "config": {key: value for key, value in flat.items() if key != "img_pos_embed_config"},
    }
    deepspeed = {"module": state, "ds_config": {"zero": 2}, "global_steps": 3}
    forms = [
        write(tmp_path / "flat", state, flat),
        write(tmp_path / "nested", state, nested),
        write(tmp_path / "safetensors", state, flat, "model.safetensors"),
        write(tmp_path / "deepspeed", deepspeed, flat, "mp_rank_00_model_states.pt")
        / "mp_rank_00_model_states.pt",
    ]
    for path in forms:
        policy = read_rdt(path)
        assert policy.num_steps == 3
        got = published_state(policy.network)
        assert got.keys() == state.keys()
        assert all(torch.equal(got[name], state[name]) for name in state)
    with torch.no_grad():
        given = replace(policy.observe(batch(state=12)), images=torch.randn(2, 12, 10))
        assert policy.solve(given, noise(actions=12)).isfinite().all()


def test_a_converted_checkpoint_keeps_its_precision(published: Any) -> None:
    state, flat = published
    half = {name: value.bfloat16() for name, value in state.items()}
    policy = policy_from_published(half, RDTConfig.parse(flat))
    assert {parameter.dtype for parameter in policy.network.parameters()} == {torch.bfloat16}
    given = replace(policy.observe(batch(state=12)), images=torch.randn(2, 12, 10))
    exact = policy_from_published(state, RDTConfig.parse(flat)).solve(given, noise(actions=12))
    rough = policy.solve(given, noise(actions=12))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.1)


def test_the_other_norm_is_another_network(published: Any) -> None:
    state, flat = published
    config = RDTConfig.parse(flat)
    policies = [policy_from_published(state, config, norm=norm) for norm in ("timm-1.0.3", "rms")]
    given = replace(policies[0].observe(batch(state=12)), images=torch.randn(2, 12, 10))
    first, second = (policy.solve(given, noise(actions=12)) for policy in policies)
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.x_pos_embed"), "positions is missing"),
        (lambda s: s.pop("model.blocks.1.norm2.weight"), "blocks.1.norm_cross.weight is missing"),
        (lambda s: s.update({"model.extra": torch.zeros(1)}), "unknown entries model.extra"),
        (lambda s: s.update({"lang_adaptor.0.weight": torch.zeros(32)}), "another number of axes"),
        (
            lambda s: s.update({"model.img_cond_pos_embed": torch.zeros(1, 9, 32)}),
            "image_positions has shape",
        ),
        # a network of this width would need terabytes
        (lambda s: s.update({"model.x_pos_embed": torch.zeros(1, 7, 1 << 20)}), "has shape"),
        (lambda s: s.update({"model.x_pos_embed": torch.zeros(1, 7, 30)}), "do not fit one another"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Any, message: str, published: Any) -> None:
    state, flat = published
    change(state)
    with pytest.raises(CheckpointError, match=message):
        policy_from_published(state, RDTConfig.parse(flat))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_scheduler": {"prediction_type": "epsilon"}}, "prediction_type is 'epsilon'"),
        ({"noise_scheduler": {"beta_schedule": "linear"}}, "beta_schedule is 'linear'"),
        ({"img_pos_embed_config": None}, "how the image tokens lie"),
        ({"img_pos_embed_config": [["image", ["a"]]]}, "how the image tokens lie"),
    ],
)
def test_a_config_that_we_do_not_know_is_refused(change: Any, message: str, published: Any) -> None:
    with pytest.raises(CheckpointError, match=message):
        RDTConfig.parse({**published[1], **change})


class Code:
    """A pickle of this would run a function when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("loaded",)


def test_files_that_are_no_checkpoint_are_refused(published: Any, tmp_path: Path) -> None:
    state, flat = published
    refused = {
        "names builtins.print": write(tmp_path / "code", {**state, "lang_adaptor.0.bias": Code()}, flat),
        "not a checkpoint of RDT": write(tmp_path / "numbers", {"step": 3}, flat),
        "config.json is missing": write(tmp_path / "bare", state, None),
        "no config of RDT": write(tmp_path / "list", state, [1]),
    }
    damaged = write(tmp_path / "damaged", state, flat, "model.safetensors")
    content = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(content[:-100])
    refused["the file is damaged"] = damaged
    (tmp_path / "empty").mkdir()
    refused["no weights of RDT"] = tmp_path / "empty"
    for message, path in refused.items():
        with pytest.raises(CheckpointError, match=message):
            read_rdt(path)
