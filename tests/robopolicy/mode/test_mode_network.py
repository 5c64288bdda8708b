"""MoDE's network: what an action sees, which experts it takes, how large it is; a token per camera, by FiLM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from polydit.core.nn.experts import Router
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.mode.encoders import FiLMResNet50, ResNet50
from polydit.robopolicy.mode.network import MoDE
from polydit.robopolicy.mode.policy import MoDEPolicy

NetworkOf = Callable[..., MoDE]
BatchOf = Callable[..., PolicyBatch]
NoiseOf = Callable[[int], Tensor]
GeneratorOf = Callable[[], torch.Generator]


@torch.no_grad()
def test_an_action_sees_what_comes_before_it_only(network_of: NetworkOf, batch_of: BatchOf) -> None:
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
def test_experts_are_chosen_by_the_noise_level_alone(network_of: NetworkOf, batch_of: BatchOf) -> None:
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


def test_the_dense_network_has_the_size_of_all_experts(
    network_of: NetworkOf, batch_of: BatchOf, generator: GeneratorOf
) -> None:
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
def test_sizes_that_do_not_fit_are_refused(
    network_of: NetworkOf, changes: dict[str, int], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        network_of(**changes)


def test_saved_and_loaded_it_is_the_same(
    network_of: NetworkOf, batch_of: BatchOf, noise_of: NoiseOf, tmp_path: Path
) -> None:
    network, batch = network_of(), batch_of()
    network.save_pretrained(tmp_path)
    again = MoDE.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    samples = [MoDEPolicy(n).sample(batch, noise_of(4)) for n in (network, again)]
    assert torch.equal(*samples)


# ---------------------------------------------------------------------------------------------------------
# Pictures


@pytest.mark.parametrize("state_dim", [0, 6])
def test_each_camera_is_one_token(
    network_of: NetworkOf, batch_of: BatchOf, noise_of: NoiseOf, generator: GeneratorOf, state_dim: int
) -> None:
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
        FiLMResNet50(2048, 8).eval(),
        torch.rand(2, 3, 64, 64),
        torch.randn(2, 2, 8),
    )
    first, second = (encoder(pictures, goal) for goal in goals)
    assert first.shape == (2, 2048) and torch.equal(first, second)
    nn.init.normal_(encoder.film2.gamma.weight)
    first, second = (encoder(pictures, goal) for goal in goals)
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="width 2048"):
        FiLMResNet50(512, 8)
