"""Which steps share a state best: the dynamic programme of DDT (Wang et al. 2025, "Decoupled Diffusion Transformer").

DDT computes its encoder at K of N steps and keeps the state in between. With states s₁ .. s_N of a full run, keeping sⱼ
up to step i costs Σ (1 - cos(sⱼ, sₘ)) over j < m ≤ i; the K starts with the least total cost are found exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache.blocks import BlockPorts, find_blocks
from polydit.core.sampling.cache.hooks import Forward, handling
from polydit.core.sampling.cache.named import RunSize


def shared_states(
    network: nn.Module, share: float, sample: Callable[[], object]
) -> Float[Tensor, "steps b n d"]:
    """What the first blocks give at every network call of a run: the states that `optimal_sharing` asks for.

    Args:
        network: Ours or one of diffusers.
        share: Of its blocks, as the cache `ddt` takes it.
        sample: Runs the network once from noise to a sample, without a cache.

    Raises:
        InputError: The share is outside [0, 1], or the network was called for different numbers of items or tokens.
    """
    blocks = find_blocks(network)
    last = blocks[RunSize(1, lambda: len(blocks)).blocks(share) - 1]
    ports, states = BlockPorts.of(last), list[Tensor]()

    def keep(forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = forward(*args, **kwargs)
        state = ports.read_outputs(output)[0]
        assert state is not None  # the first stream is the tokens
        states.append(state.detach().cpu())
        return output

    with handling({last: keep}):
        sample()
    if len({state.shape for state in states}) != 1:
        raise InputError(
            f"{type(network).__name__} was called for {len({state.shape for state in states})} shapes in a run",
            where="cache ddt",
            expected="one, so that a state can be kept from one step to the next",
        )
    return torch.stack(states)


def sharing_costs(states: Float[Tensor, "steps b n d"]) -> Float[Tensor, "steps steps"]:
    """costs[i, j], j ≤ i: what it costs to keep the state of step j from there to step i; float64.

    Args:
        states: What would be kept, at every step of a full run.
    """
    unit = torch.nn.functional.normalize(states.double(), dim=-1).flatten(1)
    tokens = states.shape[1] * states.shape[2]
    distance = 1.0 - unit @ unit.T / tokens
    return distance.fill_diagonal_(0.0).tril().cumsum(0).tril()


def optimal_sharing(states: Float[Tensor, "steps b n d"], every: int) -> tuple[int, ...]:
    """The steps at which the state is computed anew; the first is 0.

    Args:
        states: What would be kept, at every step of a full run.
        every: Steps per computed state on average: `steps // every` are computed, at least one. Published: the state
            refresh rate.

    Raises:
        InputError: `every` is below 1.
    """
    if every < 1:
        raise InputError(
            f"no state can be computed every {every} steps", where="interval", expected="1 or more"
        )
    num_steps = states.shape[0]
    segments = max(1, num_steps // every)
    costs = sharing_costs(states).tolist()
    best = [costs[end - 1][0] for end in range(1, num_steps + 1)]  # of the steps before `end`, in one segment
    starts: list[list[int]] = []
    for used in range(1, segments):
        best, chosen = _one_more(best, costs, used)
        starts.append(chosen)
    found, end = [0], num_steps
    for chosen in reversed(starts):
        end = chosen[end - 1]
        found.insert(1, end)
    return tuple(found)


def _one_more(best: list[float], costs: list[list[float]], used: int) -> tuple[list[float], list[int]]:
    """Best costs with one segment more than `used`, and where the last one starts; the first of equals wins."""
    totals, starts = [float("inf")] * len(best), [0] * len(best)
    for end in range(used + 1, len(best) + 1):
        options = [(best[start - 1] + costs[end - 1][start], start) for start in range(used, end)]
        totals[end - 1], starts[end - 1] = min(options)
    return totals, starts
