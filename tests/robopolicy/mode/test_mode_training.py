"""MoDE's training: what the loss counts, what is dropped and drawn, and that it learns to act on what it sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from polydit.robopolicy.batch import ActionModel, PolicyBatch
from polydit.robopolicy.mode.network import MoDE
from polydit.robopolicy.mode.policy import MoDEPolicy

NetworkOf = Callable[..., MoDE]
BatchOf = Callable[..., PolicyBatch]
NoiseOf = Callable[[int], Tensor]
GeneratorOf = Callable[[], torch.Generator]
HORIZON, ACTION, STATE, GOAL = 5, 3, 6, 8  # of the small network


def test_it_is_an_action_model(network_of: NetworkOf) -> None:
    policy = MoDEPolicy(network_of())
    assert isinstance(policy, ActionModel)
    assert (policy.horizon, policy.action_dim, policy.num_steps) == (HORIZON, ACTION, 10)


def test_the_loss_is_its_generators(network_of: NetworkOf, batch_of: BatchOf, generator: GeneratorOf) -> None:
    policy, batch = MoDEPolicy(network_of()), batch_of()
    first, second = (policy.loss(batch, generator())["loss"] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, policy.loss(batch, torch.Generator().manual_seed(2))["loss"])
    scalars = policy.loss(batch, generator())
    torch.testing.assert_close(scalars["loss"], scalars["denoising"] + 0.01 * scalars["balance"])


def test_actions_after_the_end_of_an_episode_teach_nothing(
    network_of: NetworkOf, batch_of: BatchOf, generator: GeneratorOf
) -> None:
    policy = MoDEPolicy(network_of())
    pad = torch.zeros(4, HORIZON, dtype=torch.bool)
    pad[:, 3:] = True
    batch = batch_of(action_is_pad=pad)
    assert batch.actions is not None
    other = replace(batch, actions=torch.where(pad[..., None], batch.actions + 5.0, batch.actions))
    losses = [policy.loss(b, generator())["loss"] for b in (batch, other)]
    torch.testing.assert_close(*losses)
    assert policy.loss(batch_of(), generator())["loss"] != losses[0]


def test_numbers_of_the_goal_are_dropped_one_by_one_in_training_alone(
    network_of: NetworkOf, batch_of: BatchOf, generator: GeneratorOf
) -> None:
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


def test_training_chooses_experts_by_draw_and_acting_by_rank(
    network_of: NetworkOf, generator: GeneratorOf
) -> None:
    network = network_of(decided=False)
    context, level = torch.zeros(64, 2, 32), torch.zeros(64)
    actions = torch.zeros(64, HORIZON, ACTION)
    drawn = network(actions, level, context, generator=generator()).routings[0].indices
    ranked = network(actions, level, context).routings[0].indices
    assert len({tuple(row) for row in drawn.tolist()}) > 1
    assert len({tuple(row) for row in ranked.tolist()}) == 1


def test_it_learns_to_act_on_what_it_sees(
    network_of: NetworkOf, batch_of: BatchOf, noise_of: NoiseOf
) -> None:
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
