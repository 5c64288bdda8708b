"""MoDE: what its expert cache saves, and what routing costs beside one feed-forward of the same total size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from polydit.bench.measure import interleave, paired_ratio, threads
from polydit.bench.rows import Row
from polydit.core.nn.experts import Router
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.mode.network import MoDE
from polydit.robopolicy.mode.policy import MoDEPolicy

STATE, GOAL, ACTION, HORIZON = 39, 64, 4, 10  # a state policy for MetaWorld
TRAINING_BATCH = 32


@dataclass(frozen=True, slots=True)
class Size:
    """Of the network; the default is about a fortieth of the published one."""

    width: int = 256
    depth: int = 6
    heads: int = 8

    def network(self, *, dense: bool = False) -> MoDE:
        """Random weights; routers that are not undecided, so that levels of noise differ in their experts."""
        torch.manual_seed(0)
        network = MoDE(
            horizon=HORIZON,
            action_dim=ACTION,
            goal_dim=GOAL,
            state_dim=STATE,
            cameras=0,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            dense=dense,
        )
        routers = (module for module in network.modules() if isinstance(module, Router))
        for value in (p for router in routers for p in router.net.parameters()):
            nn.init.normal_(value)
        return network.eval()

    def __str__(self) -> str:
        return f"{self.width} wide, {self.depth} blocks, 2 of 4 experts, {HORIZON} actions"


def _batch(items: int) -> PolicyBatch:
    generator = torch.Generator().manual_seed(1)
    return PolicyBatch(
        state=torch.randn(items, STATE, generator=generator),
        language=torch.randn(items, 1, GOAL, generator=generator),
        language_mask=torch.ones(items, 1, dtype=torch.bool),
        control_frequency=torch.full((items,), 80.0),
        actions=torch.randn(items, HORIZON, ACTION, generator=generator) / 2,
    )


def _noise(items: int) -> Tensor:
    return torch.randn(items, HORIZON, ACTION, generator=torch.Generator().manual_seed(2))


def cache_rows(*, quick: bool, size: Size | None = None) -> Iterator[Row]:
    """A chunk with planned experts against one that routes in every step: outputs and time."""
    size, rounds = size or Size(), 9 if quick else 31
    network = size.network()
    cached, routed = MoDEPolicy(network), MoDEPolicy(network, cached=False)
    batch, noise = _batch(1), _noise(1)
    with threads(1):
        deviation = (cached.sample(batch, noise) - routed.sample(batch, noise)).abs().max().item()
        timings = interleave(
            {"ours": partial(cached.sample, batch, noise), "plain": partial(routed.sample, batch, noise)},
            rounds=rounds,
        )
    how = f"{size}, fp32, {cached.num_steps} steps, batch 1, the same weights and noise"
    yield Row(
        key="cache difference",
        what="MoDE, largest difference of actions with and without the expert cache",
        value=deviation,
        unit="",
        asked=1e-5,
        how=how,
    )
    ours, plain = timings["ours"], timings["plain"]
    yield Row(
        key="cache time",
        what="MoDE, one chunk of actions with the expert cache over without",
        value=paired_ratio(ours.cpu, plain.cpu),
        unit="×",
        asked=0.87,
        aim=0.7,
        how=f"{how}, one thread, CPU time, median of {rounds} interleaved rounds: {ours.median_cpu * 1e3:.1f} "
        f"against {plain.median_cpu * 1e3:.1f} ms; the cache holds {cached.cache.nbytes / 1e6:.0f} MB beside "
        f"the network's {network.num_parameters() * 4e-6:.0f} MB",
        details={"ours": ours.cpu, "plain": plain.cpu},
    )


def dense_rows(*, quick: bool, size: Size | None = None) -> Iterator[Row]:
    """2 of 4 experts against one feed-forward of the size of all four: parameters, a chunk, a training step."""
    size, rounds = size or Size(), 5 if quick else 15
    networks = {"routed": size.network(), "dense": size.network(dense=True)}
    total = {name: network.num_parameters() for name, network in networks.items()}
    active = networks["routed"].active_parameters
    yield Row(
        key="active parameters",
        what="MoDE, parameters that a noise level uses over those of the dense network of equal total size",
        value=active / total["dense"],
        unit="×",
        asked=0.6,
        how=f"{size}: {active / 1e6:.2f} of {total['routed'] / 1e6:.2f} million against {total['dense'] / 1e6:.2f} "
        "million",
    )
    policies = {name: MoDEPolicy(network) for name, network in networks.items()}
    policies["routed, no cache"] = MoDEPolicy(networks["routed"], cached=False)
    with threads(1):
        chunks = interleave(
            {name: partial(policy.sample, _batch(1), _noise(1)) for name, policy in policies.items()},
            rounds=rounds,
        )
        steps = interleave(
            {name: partial(_training_step, policies[name]) for name in networks}, rounds=max(3, rounds // 3)
        )
    for key, name, timings in (
        ("chunk, routed", "routed", chunks),
        ("chunk, routed without the cache", "routed, no cache", chunks),
        ("training step, routed", "routed", steps),
    ):
        ours, plain = timings[name], timings["dense"]
        items = 1 if timings is chunks else TRAINING_BATCH
        yield Row(
            key=key,
            what=f"MoDE, {key}, over the dense network of equal total size",
            value=paired_ratio(ours.cpu, plain.cpu),
            unit="×",
            how=f"{size}, fp32, batch {items}, one thread, CPU time, median of {len(ours.cpu)} interleaved "
            f"rounds: {ours.median_cpu * 1e3:.1f} against {plain.median_cpu * 1e3:.1f} ms",
            details={"ours": ours.cpu, "plain": plain.cpu},
        )


def _training_step(policy: MoDEPolicy) -> None:
    """Forward and backward of a batch."""
    for parameter in policy.network.parameters():
        parameter.grad = None
    policy.loss(_batch(TRAINING_BATCH), torch.Generator().manual_seed(3))["loss"].backward()
