"""MoDE's sampling: the cache that routes once changes nothing, shares weights, and notices when they change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.nn.experts import Router
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.mode.network import MoDE
from polydit.robopolicy.mode.policy import MoDEPolicy

NetworkOf = Callable[..., MoDE]
BatchOf = Callable[..., PolicyBatch]
NoiseOf = Callable[[int], Tensor]


@pytest.mark.parametrize("items", [1, 6])
@pytest.mark.parametrize("num_steps", [None, 2, 7])
def test_the_cache_changes_nothing(
    network_of: NetworkOf, batch_of: BatchOf, noise_of: NoiseOf, items: int, num_steps: int | None
) -> None:
    network, batch, noise = network_of(), batch_of(items), noise_of(items)
    cached, plain = MoDEPolicy(network), MoDEPolicy(network, cached=False)
    expected = plain.sample(batch, noise, num_steps)
    assert expected.shape == noise.shape and expected.isfinite().all()
    for _ in range(2):  # the second chunk finds the plans made
        assert (cached.sample(batch, noise, num_steps) - expected).abs().max() <= 1e-5
    assert cached.cache.nbytes > 0 and plain.cache.nbytes == 0


def test_with_a_plan_nothing_is_routed(network_of: NetworkOf, batch_of: BatchOf, noise_of: NoiseOf) -> None:
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


def test_steps_with_the_same_experts_share_their_weights(network_of: NetworkOf) -> None:
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
def test_the_cache_notices_other_weights(
    network_of: NetworkOf, batch_of: BatchOf, noise_of: NoiseOf, change: Callable[[MoDE], None]
) -> None:
    network, batch, noise = network_of(), batch_of(), noise_of(4)
    policy = MoDEPolicy(network)
    before = policy.sample(batch, noise)
    change(network)
    expected = MoDEPolicy(network, cached=False).sample(batch, noise)
    after = policy.sample(batch, noise)
    assert (after - expected).abs().max() <= 1e-5
    assert (after - before).abs().max() > 1e-3


def test_while_training_nothing_is_cached(
    network_of: NetworkOf, batch_of: BatchOf, noise_of: NoiseOf
) -> None:
    policy = MoDEPolicy(network_of().train())
    policy.sample(batch_of(), noise_of(4))
    assert policy.cache.nbytes == 0


def test_too_few_steps_are_refused(network_of: NetworkOf, batch_of: BatchOf, noise_of: NoiseOf) -> None:
    for steps in (1, 0):
        with pytest.raises(InputError, match="expected 2 or more"):
            MoDEPolicy(network_of()).sample(batch_of(), noise_of(4), steps)


def test_an_item_is_sampled_alike_in_any_batch(
    network_of: NetworkOf, batch_of: BatchOf, noise_of: NoiseOf
) -> None:
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
def test_in_bfloat16_it_plans_nearly_the_same(
    network_of: NetworkOf, batch_of: BatchOf, noise_of: NoiseOf, cached: bool
) -> None:
    batch, noise = batch_of(), noise_of(4)
    exact = MoDEPolicy(network_of()).sample(batch, noise)
    rough = MoDEPolicy(network_of().to(torch.bfloat16), cached=cached).sample(batch, noise)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max()
