"""RDT as a policy: what it samples, the loss that it learns by, and what training withholds from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from polydit.core.errors import InputError
from polydit.robopolicy.batch import ActionModel, PolicyBatch
from polydit.robopolicy.rdt.conditions import BACKGROUND, Conditions, Withholding
from polydit.robopolicy.rdt.network import RDT
from polydit.robopolicy.rdt.policy import RDTPolicy

NetworkOf = Callable[..., RDT]
BatchOf = Callable[..., PolicyBatch]
NoiseOf = Callable[..., Tensor]
ConditionsOf = Callable[[int], Conditions]
STATE, ACTION, LANGUAGE = 5, 3, 8  # of the tiny network


def rows(given: PolicyBatch, index: slice) -> PolicyBatch:
    """Some items of a batch."""
    values = {name: value[index] for name, value in vars(given).items() if value is not None}
    return PolicyBatch(**values)


def test_the_policy_is_an_action_model(network: NetworkOf) -> None:
    policy = RDTPolicy(network())
    assert isinstance(policy, ActionModel)
    assert (policy.horizon, policy.action_dim, policy.num_steps) == (4, ACTION, 5)
    assert RDTPolicy(network(), solver="ddpm").num_steps == 100
    assert RDTPolicy(network(), **RDTPolicy(network(), num_steps=7).settings).num_steps == 7


@pytest.mark.parametrize(("solver", "steps"), [("dpm", 5), ("ddpm", 20)])
def test_an_item_gets_the_same_actions_in_any_batch(
    network: NetworkOf, batch: BatchOf, noise: NoiseOf, solver: Any, steps: int
) -> None:
    policy, given = RDTPolicy(network(), solver=solver), batch(3)
    together = policy.sample(given, noise(3), steps)
    alone = policy.sample(rows(given, slice(1, 2)), noise(3)[1:2], steps)
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("steps", [0, 1001])
def test_step_counts_that_cannot_be_are_refused(
    network: NetworkOf, batch: BatchOf, noise: NoiseOf, steps: int
) -> None:
    with pytest.raises(InputError, match=rf"{steps} steps; expected 1\.\.1000"):
        RDTPolicy(network()).sample(batch(), noise(), steps)


def test_unused_slots_stay_empty(network: NetworkOf, batch: BatchOf, noise: NoiseOf) -> None:
    policy = RDTPolicy(network(state_dim=None, action_dim=12), slots=[0, 3, 11])
    actions = policy.sample(batch(state=12), noise(actions=12))
    used = actions.abs().amax((0, 1)) > 0
    assert used.nonzero().flatten().tolist() == [0, 3, 11]
    with pytest.raises(ValueError, match="slot 12 is not among the network's 12"):
        RDTPolicy(policy.network, slots=[0, 12])


def test_the_loss_is_that_of_the_published_objective(
    network: NetworkOf, batch: BatchOf, noise: NoiseOf
) -> None:
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


def test_both_solvers_give_the_actions_that_were_learned(network: NetworkOf, noise: NoiseOf) -> None:
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


@pytest.fixture
def conditions(network: NetworkOf, batch: BatchOf) -> ConditionsOf:
    """``conditions(2)``: what the policy sees of two items, with pictures of two cameras."""
    policy = RDTPolicy(network(image_encoder="patches", image_layout=(2, 2, 2), patch_size=4))
    return lambda items: policy.observe(batch(items, pictures=(2, 3, 8, 8)))


def test_what_is_withheld_is_replaced_as_published(conditions: ConditionsOf) -> None:
    mean, empty = torch.arange(5.0), torch.full((LANGUAGE,), 3.0)
    withhold = Withholding(probability=1.0, state_mean=mean, empty_language=empty)
    got = withhold(conditions(2), torch.Generator())
    assert torch.equal(got.state, mean.expand(2, 5))
    assert not got.state_mask.any()
    assert not got.action_mask.any()
    assert torch.equal(got.control_frequency, torch.zeros(2))
    assert torch.equal(got.language[:, 0], empty.expand(2, LANGUAGE))
    assert got.language_mask.tolist() == [[True, False, False]] * 2
    assert torch.equal(got.images, torch.full((2, 2, 3, 8, 8), BACKGROUND))


def test_nothing_is_withheld_without_need(conditions: ConditionsOf) -> None:
    given = conditions(2)
    got = Withholding(probability=0.0, state_snr=None)(given, torch.Generator())
    for name, value in vars(given).items():
        assert torch.equal(getattr(got, name), value), name


def test_conditions_are_withheld_independently_at_the_published_rate(conditions: ConditionsOf) -> None:
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


def test_noise_on_the_state_has_the_published_size_and_spares_unused_slots(conditions: ConditionsOf) -> None:
    given = replace(conditions(4000), state_mask=torch.tensor([1.0, 1, 1, 1, 0]).expand(4000, 5))
    std = torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0])
    got = Withholding(probability=0.0, state_std=std)(given, torch.Generator().manual_seed(0))
    measured = (got.state - given.state).std(0)
    torch.testing.assert_close(measured, torch.tensor([0.01, 0.02, 0.01, 0.01, 0.0]), atol=1e-3, rtol=0.0)
