"""A small MoDE, what it sees, and the noise that it starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from polydit.core.nn.experts import Router
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.mode.network import MoDE

HORIZON, ACTION, STATE, GOAL = 5, 3, 6, 8


@pytest.fixture(scope="session")
def network_of() -> Callable[..., MoDE]:
    """A small network. Its routers begin undecided; `decided` makes them differ clearly from noise level to level."""

    def make(*, decided: bool = True, **changes: Any) -> MoDE:
        torch.manual_seed(0)
        sizes = {"horizon": HORIZON, "action_dim": ACTION, "observation_dim": 0, "goal_dim": GOAL}
        shape = {"state_dim": STATE, "cameras": 0, "width": 32, "depth": 3, "heads": 4, "hidden_ratio": 2}
        network = MoDE(**{**sizes, **shape, **changes}).eval()
        for module in network.modules() if decided else ():
            if isinstance(module, Router):
                for value in module.net.parameters():
                    nn.init.normal_(value, std=1.0)
        return network

    return make


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., PolicyBatch]:
    """``batch_of(3, seed=1, images=pictures)``: observations and the actions that follow them."""

    def make(items: int = 4, *, seed: int = 0, **changes: Any) -> PolicyBatch:
        generator = torch.Generator().manual_seed(seed)
        batch = PolicyBatch(
            state=torch.randn(items, STATE, generator=generator),
            language=torch.randn(items, 2, GOAL, generator=generator),
            language_mask=torch.tensor([[True, False]]).expand(items, 2),
            control_frequency=torch.zeros(items),
            actions=torch.rand(items, HORIZON, ACTION, generator=generator) - 0.5,
        )
        return replace(batch, **changes)

    return make


@pytest.fixture(scope="session")
def noise_of() -> Callable[[int], Tensor]:
    """``noise_of(4)``: what the sampling of four items starts from, always the same."""
    return lambda items: torch.randn(items, HORIZON, ACTION, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="session")
def generator() -> Callable[[], torch.Generator]:
    """``generator()``: always the same draws."""
    return lambda: torch.Generator().manual_seed(1)
