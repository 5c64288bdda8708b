"""MoDE: its sequence, its experts, the cache that routes once, its training, and published checkpoints."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from polydit.core.errors import CheckpointError, InputError
from polydit.core.nn.experts import Router
from polydit.core.testing.golden import GoldenCase
from polydit.robopolicy.batch import ActionModel, PolicyBatch
from polydit.robopolicy.mode.convert import MoDEConfig, network_from_published, read_mode
from polydit.robopolicy.mode.encoders import FiLMResNet50, ResNet50
from polydit.robopolicy.mode.network import MoDE
from polydit.robopolicy.mode.policy import MoDEPolicy

HORIZON, ACTION, STATE, GOAL = 5, 3, 6, 8
CASE = Path(__file__).parents[1] / "golden" / "cases" / "mode-denoiser.json"


def network_of(*, decided: bool = True, **changes: Any) -> MoDE:
    """A small network. Its routers begin undecided; `decided` makes them differ clearly from noise level to level."""
    torch.manual_seed(0)
    sizes = {
        "horizon": HORIZON,
        "action_dim": ACTION,
        "observation_dim": 0,
        "goal_dim": GOAL,
        "state_dim": STATE,
    }
    shape = {"cameras": 0, "width": 32, "depth": 3, "heads": 4, "hidden_ratio": 2}
    network = MoDE(**{**sizes, **shape, **changes}).eval()
    for module in network.modules() if decided else ():
        if isinstance(module, Router):
            for value in module.net.parameters():
                nn.init.normal_(value, std=1.0)
    return network


def batch_of(items: int = 4, *, seed: int = 0, **changes: Any) -> PolicyBatch:
    generator = torch.Generator().manual_seed(seed)
    batch = PolicyBatch(
        state=torch.randn(items, STATE, generator=generator),
        language=torch.randn(items, 2, GOAL, generator=generator),
        language_mask=torch.tensor([[True, False]]).expand(items, 2),
        control_frequency=torch.zeros(items),
        actions=torch.rand(items, HORIZON, ACTION, generator=generator) - 0.5,
    )
    return replace(batch, **changes)


def noise_of(items: int) -> Tensor:
    return torch.randn(items, HORIZON, ACTION, generator=torch.Generator().manual_seed(9))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


# ---------------------------------------------------------------------------------------------------------
# The network


@torch.no_grad()
def test_an_action_sees_what_comes_before_it_only() -> None:
    network, batch = network_of(), batch_of(1)
    assert batch.actions is not None
    context = network.context(network.observe(batch.state, None, batch.language[:, 0]), batch.language[:, 0])
    level, changed = torch.zeros(1), batch.actions.clone()
    changed[:, 3] += 1.0
    before, after = (network(x, level, context).sample for x in (batch.actions, changed))
    difference = (before - after).abs().amax((0, 2))
    assert difference[:3].max() == 0.0 and difference[3:].min() > 0.0
    for token in range(context.shape[1]):  # the goal and the state are seen by all
        other = context.clone()
        other[:, token] += 1.0
        assert (network(batch.actions, level, other).sample - before).abs().amax((0, 2)).min() > 0.0


@torch.no_grad()
def test_experts_are_chosen_by_the_noise_level_alone() -> None:
    network = network_of()
    levels = torch.linspace(-1.7, 1.1, 9)
    routings = []
    for seed in (0, 1):
        batch = batch_of(9, seed=seed)
        assert batch.actions is not None
        context = network.context(batch.state[:, None], batch.language[:, 0])
        routings.append(network(batch.actions, levels, context).routings)
    assert len(routings[0]) == 3
    for first, second in zip(*routings, strict=True):
        assert torch.equal(first.indices, second.indices)
    assert len({tuple(row) for row in routings[0][0].indices.tolist()}) > 1


def test_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = MoDE(observation_dim=2048, cameras=0)
    unused = 2048 * 1024  # the published network has one more matrix, which it never uses
    assert network.num_parameters() + unused == pytest.approx(685.9e6, rel=1e-4)
    assert network.active_parameters + unused == pytest.approx(383.7e6, rel=1e-4)


def test_the_dense_network_has_the_size_of_all_experts() -> None:
    routed, dense = network_of(width=64, hidden_ratio=4), network_of(width=64, hidden_ratio=4, dense=True)
    routers = sum(p.numel() for m in routed.modules() if isinstance(m, Router) for p in m.parameters())
    assert dense.num_parameters() == pytest.approx(routed.num_parameters() - routers, rel=0.01)
    assert dense.active_parameters == dense.num_parameters()
    assert routed.active_parameters < 0.65 * routed.num_parameters()
    out = MoDEPolicy(dense).loss(batch_of(), generator())
    assert set(out) == {"loss", "denoising"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"state_dim": 0}, "neither a state nor pictures"),
        ({"top_k": 5}, "5 of 4 experts"),
        ({"heads": 5}, "heads 5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        network_of(**changes)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    network, batch = network_of(), batch_of()
    network.save_pretrained(tmp_path)
    again = MoDE.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    samples = [MoDEPolicy(n).sample(batch, noise_of(4)) for n in (network, again)]
    assert torch.equal(*samples)


# ---------------------------------------------------------------------------------------------------------
# Sampling and the cache


@pytest.mark.parametrize("items", [1, 6])
@pytest.mark.parametrize("num_steps", [None, 2, 7])
def test_the_cache_changes_nothing(items: int, num_steps: int | None) -> None:
    network, batch, noise = network_of(), batch_of(items), noise_of(items)
    cached, plain = MoDEPolicy(network), MoDEPolicy(network, cached=False)
    expected = plain.sample(batch, noise, num_steps)
    assert expected.shape == (items, HORIZON, ACTION) and expected.isfinite().all()
    for _ in range(2):  # the second chunk finds the plans made
        assert (cached.sample(batch, noise, num_steps) - expected).abs().max() <= 1e-5
    assert cached.cache.nbytes > 0 and plain.cache.nbytes == 0


def test_with_a_plan_nothing_is_routed() -> None:
    network = network_of()
    policy = MoDEPolicy(network)
    calls: list[int] = []
    for module in network.modules():
        if isinstance(module, Router):
            module.register_forward_hook(lambda *_: calls.append(1))
    policy.sample(batch_of(), noise_of(4))
    assert len(calls) == 3  # each block once, for all ten steps
    policy.sample(batch_of(seed=1), noise_of(4))
    policy.sample(batch_of(2), noise_of(2))
    assert len(calls) == 3
    MoDEPolicy(network, cached=False).sample(batch_of(), noise_of(4))
    assert len(calls) == 3 + 30


def test_steps_with_the_same_experts_share_their_weights() -> None:
    network = network_of()
    policy = MoDEPolicy(network)
    levels = policy.objective.condition(torch.logspace(1.9, -3, 200))
    policy.cache.plans(levels, 8)
    pairs = 4 * 3 // 2
    one = network.blocks[0].mlp.experts
    size = sum(p.nbytes for p in (one.w_in, one.w_out)) // 2
    assert policy.cache.nbytes <= 3 * pairs * size < 200 * size


def _optimizer_step(network: MoDE) -> None:
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()


def _load(network: MoDE) -> None:
    network.load_state_dict({name: value + 0.5 for name, value in network.state_dict().items()})


def _write_and_evaluate(network: MoDE) -> None:
    network.train()
    for p in network.parameters():  # as a running average is put in the place of the weights
        p.data.copy_(p.data + 0.5)
    network.eval()


@pytest.mark.parametrize("change", [_optimizer_step, _load, _write_and_evaluate])
def test_the_cache_notices_other_weights(change: Callable[[MoDE], None]) -> None:
    network, batch, noise = network_of(), batch_of(), noise_of(4)
    policy = MoDEPolicy(network)
    before = policy.sample(batch, noise)
    change(network)
    expected = MoDEPolicy(network, cached=False).sample(batch, noise)
    after = policy.sample(batch, noise)
    assert (after - expected).abs().max() <= 1e-5
    assert (after - before).abs().max() > 1e-3


def test_while_training_nothing_is_cached() -> None:
    policy = MoDEPolicy(network_of().train())
    policy.sample(batch_of(), noise_of(4))
    assert policy.cache.nbytes == 0


def test_too_few_steps_are_refused() -> None:
    for steps in (1, 0):
        with pytest.raises(InputError, match="expected 2 or more"):
            MoDEPolicy(network_of()).sample(batch_of(), noise_of(4), steps)


def test_an_item_is_sampled_alike_in_any_batch() -> None:
    policy, batch, noise = MoDEPolicy(network_of()), batch_of(3), noise_of(3)
    alone = PolicyBatch(
        state=batch.state[1:2],
        language=batch.language[1:2],
        language_mask=batch.language_mask[1:2],
        control_frequency=torch.zeros(1),
    )
    together = policy.sample(batch, noise)[1:2]
    torch.testing.assert_close(policy.sample(alone, noise[1:2]), together, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cached", [True, False])
def test_in_bfloat16_it_plans_nearly_the_same(cached: bool) -> None:
    batch, noise = batch_of(), noise_of(4)
    exact = MoDEPolicy(network_of()).sample(batch, noise)
    rough = MoDEPolicy(network_of().to(torch.bfloat16), cached=cached).sample(batch, noise)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()


# ---------------------------------------------------------------------------------------------------------
# Training


def test_it_is_an_action_model() -> None:
    policy = MoDEPolicy(network_of())
    assert isinstance(policy, ActionModel)
    assert (policy.horizon, policy.action_dim, policy.num_steps) == (HORIZON, ACTION, 10)


def test_the_loss_is_its_generators() -> None:
    policy, batch = MoDEPolicy(network_of()), batch_of()
    first, second = (policy.loss(batch, generator())["loss"] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, policy.loss(batch, torch.Generator().manual_seed(2))["loss"])
    scalars = policy.loss(batch, generator())
    torch.testing.assert_close(scalars["loss"], scalars["denoising"] + 0.01 * scalars["balance"])


def test_actions_after_the_end_of_an_episode_teach_nothing() -> None:
    policy = MoDEPolicy(network_of())
    pad = torch.zeros(4, HORIZON, dtype=torch.bool)
    pad[:, 3:] = True
    batch = batch_of(action_is_pad=pad)
    assert batch.actions is not None
    other = replace(batch, actions=torch.where(pad[..., None], batch.actions + 5.0, batch.actions))
    losses = [policy.loss(b, generator())["loss"] for b in (batch, other)]
    torch.testing.assert_close(*losses)
    assert policy.loss(batch_of(), generator())["loss"] != losses[0]


def test_numbers_of_the_goal_are_dropped_one_by_one_in_training_alone() -> None:
    network = network_of()
    with torch.no_grad():
        network.goal_embed.weight.copy_(torch.eye(32, GOAL))
        network.positions.zero_()
    policy = MoDEPolicy(network, goal_dropout=0.25)
    batch = batch_of(400, language=torch.ones(400, 2, GOAL))
    dropped = policy._context(batch, generator())[:, 0, :GOAL]
    assert set(dropped.unique().tolist()) == {0.0, 1.0}
    assert dropped.mean().item() == pytest.approx(0.75, abs=0.03)
    assert (dropped.sum(1) % GOAL != 0).any()  # not whole goals
    assert policy._context(batch)[:, 0, :GOAL].min() == 1.0


def test_training_chooses_experts_by_draw_and_acting_by_rank() -> None:
    network = network_of(decided=False)
    context, level = torch.zeros(64, 2, 32), torch.zeros(64)
    actions = torch.zeros(64, HORIZON, ACTION)
    drawn = network(actions, level, context, generator=generator()).routings[0].indices
    ranked = network(actions, level, context).routings[0].indices
    assert len({tuple(row) for row in drawn.tolist()}) > 1
    assert len({tuple(row) for row in ranked.tolist()}) == 1


def test_it_learns_to_act_on_what_it_sees() -> None:
    """Actions follow from state and goal; after a short training its plans do, too."""
    torch.manual_seed(0)
    network = network_of(decided=False, depth=2).train()
    policy = MoDEPolicy(network, goal_dropout=0.0)
    optimizer = torch.optim.AdamW(network.parameters(), 6e-3)
    source, way = torch.Generator().manual_seed(0), torch.randn(STATE + GOAL, HORIZON * ACTION) / 12

    def task(items: int) -> PolicyBatch:
        state = torch.randn(items, STATE, generator=source)
        goal = torch.randint(0, 2, (items, 1, GOAL), generator=source).float()
        actions = (torch.cat([state, goal[:, 0]], dim=1) @ way).unflatten(1, (HORIZON, ACTION)).tanh()
        return batch_of(items, state=state, language=goal.expand(-1, 2, -1), actions=actions)

    for _ in range(160):
        loss = policy.loss(task(64), source)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    seen = task(64)
    assert seen.actions is not None
    error = (policy.sample(seen, noise_of(64)) - seen.actions).square().mean()
    assert error < 0.4 * seen.actions.var()  # of an untrained one: more than the variance


# ---------------------------------------------------------------------------------------------------------
# Pictures


@pytest.mark.parametrize("state_dim", [0, STATE])
def test_each_camera_is_one_token(state_dim: int) -> None:
    network = network_of(state_dim=state_dim, cameras=2)
    pictures = torch.rand(4, 2, 3, 32, 32)
    observations = network.observe(batch_of().state, pictures, batch_of().language[:, 0])
    assert observations.shape == (4, 2 + bool(state_dim), 256)
    swapped = network.observe(batch_of().state, pictures.flip(1), batch_of().language[:, 0])
    assert not torch.equal(observations[:, -1], swapped[:, -2])  # each camera has its own encoder
    scalars = MoDEPolicy(network).loss(batch_of(images=pictures), generator())
    scalars["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.encoders.parameters())
    with pytest.raises(ValueError, match="0 pictures for 2 cameras"):
        MoDEPolicy(network).sample(batch_of(), noise_of(4))


def test_resnet50_is_the_one_that_is_published() -> None:
    """Parameters and entries of torchvision's and timm's, without the classifier."""
    with torch.device("meta"):
        net = ResNet50()
    assert sum(p.numel() for p in net.parameters()) == 25_557_032 - 2049 * 1000  # its classifier
    state = net.state_dict()
    assert len(state) == 318
    assert state["layer2.0.downsample.0.weight"].shape == (512, 256, 1, 1)
    assert state["layer4.2.bn3.running_var"].shape == (2048,)
    assert net.layer3[0].conv2.stride == (2, 2) and net.layer3[0].conv1.stride == (1, 1)


@torch.no_grad()
def test_film_begins_as_the_identity_and_then_obeys_the_goal() -> None:
    torch.manual_seed(0)
    encoder, pictures, goals = (
        FiLMResNet50(2048, GOAL).eval(),
        torch.rand(2, 3, 64, 64),
        torch.randn(2, 2, GOAL),
    )
    first, second = (encoder(pictures, goal) for goal in goals)
    assert first.shape == (2, 2048) and torch.equal(first, second)
    nn.init.normal_(encoder.film2.gamma.weight)
    first, second = (encoder(pictures, goal) for goal in goals)
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="width 2048"):
        FiLMResNet50(512, GOAL)


# ---------------------------------------------------------------------------------------------------------
# Published checkpoints


@pytest.fixture
def published() -> dict[str, Tensor]:
    """A published agent's state dict at a tiny size, without encoders."""
    return {f"model.{name}": value for name, value in GoldenCase.read(CASE).state_dict().items()}


def published_folder(folder: Path, state: dict[str, Tensor], config: dict[str, Any] | None = None) -> Path:
    save_file(
        {name: value.contiguous() for name, value in state.items()}, folder / "model_cleaned.safetensors"
    )
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"model_config": config}))
    return folder


def test_a_folder_and_a_file_of_either_kind_are_read(tmp_path: Path, published: dict[str, Tensor]) -> None:
    networks = [read_mode(published_folder(tmp_path, published))]
    networks.append(read_mode(tmp_path / "model_cleaned.safetensors"))
    torch.save({"state_dict": published, "epoch": 3}, tmp_path / "last.ckpt")
    networks.append(read_mode(tmp_path / "last.ckpt"))
    assert networks[0].config.heads == 2 and networks[0].config.horizon == 4
    assert networks[0].config.num_experts == 4 and networks[0].config.hidden_ratio == 4
    for other in networks[1:]:
        for name, value in networks[0].state_dict().items():
            assert torch.equal(other.state_dict()[name], value)


def test_the_config_decides_how_many_experts(tmp_path: Path, published: dict[str, Tensor]) -> None:
    settings = {"top_k": 3, "router_normalize": False, "action_dim": "${datamodule.action_space}"}
    folder = published_folder(tmp_path, published, {"model": {"inner_model": settings}})
    network = read_mode(folder)
    assert network.config.top_k == 3 and network.config.normalize is False
    assert read_mode(folder, top_k=1).config.top_k == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("use_goal_in_routing", True), ("causal", False), ("use_shared_expert", True), ("top_k", "two")],
)
def test_networks_that_we_do_not_have_are_refused(name: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=name):
        MoDEConfig.parse({"inner_model": {name: value}})


@torch.no_grad()
@pytest.mark.parametrize(
    "names", [("static_resnet", "gripper_resnet"), ("img_encoder_image_primary", "img_encoder_image_wrist")]
)
def test_encoders_come_along(names: tuple[str, str], published: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    encoder = FiLMResNet50(2048, 10).eval()
    nn.init.normal_(encoder.film1.beta.weight, std=0.1)
    state = dict(published)
    state["model.inner_model.tok_emb.weight"] = torch.randn(16, 2048) / 50
    for index, name in enumerate(names):
        state |= {f"{name}.{key}": value + (0.01 * index if value.is_floating_point() else 0)
                  for key, value in encoder.state_dict().items()}  # fmt: skip
    state["language_goal.clip.text_projection"] = torch.zeros(2)  # not ours
    network = network_from_published(state)
    assert network.config.cameras == 2 and network.config.observation_dim == 2048
    pictures, goal = torch.rand(1, 2, 3, 32, 32), torch.randn(1, 10)
    tokens = network.observe(torch.zeros(1, 0), pictures, goal)
    assert torch.equal(tokens[:, 0], encoder(pictures[:, 0], goal))
    assert not torch.equal(tokens[:, 1], encoder(pictures[:, 1], goal))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s.pop("model.inner_model.blocks.1.attn.key.bias"), "blocks.1.attn.key.bias is missing"),
        (lambda s: s.pop("model.inner_model.ln.g"), "norm.weight is missing"),
        (lambda s: s.pop("model.inner_model.pos_emb"), "positions is missing"),
        (lambda s: s.pop("model.inner_model.blocks.0.experts.expert_3.mlp.2.weight"), "3.mlp.2.weight is missing"),
        (lambda s: s.update({"model.inner_model.state_embed.weight": torch.zeros(2)}), "state_embed.weight"),
        (lambda s: s.update({"model.inner_model.blocks.0.shared_mlp.mlp.2.weight": torch.zeros(2)}), "shared_mlp"),
        (lambda s: s.update({"encoder.weight": torch.zeros(2)}), "unknown entries encoder.weight"),
        (lambda s: s.update({"model.inner_model.out.bias": torch.zeros(3)}), "out.bias has shape"),
        (lambda s: s.update({"model.inner_model.pos_emb": torch.zeros(5)}), "not a checkpoint of MoDE"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Tensor]], Any], problem: str, published: dict[str, Tensor]
) -> None:
    change(published)
    with pytest.raises(CheckpointError, match=problem):
        network_from_published(published, source="a.pt")


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected model_cleaned\.safetensors"):
        read_mode(tmp_path)
    (tmp_path / "model_cleaned.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        read_mode(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="no config of MoDE"):
        read_mode(tmp_path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    path = tmp_path / "bad.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad/data.pkl", pickle.dumps({"state_dict": Payload()}))
    with pytest.raises(CheckpointError, match=r"builtins\.exec"):
        read_mode(path)
    assert not (tmp_path / "ran").exists()
