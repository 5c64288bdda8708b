"""A tiny real RDT, what it sees, and the noise that it starts from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.rdt.network import RDT

STATE, ACTION, LANGUAGE = 5, 3, 8
SIZES = {
    "horizon": 4, "width": 32, "depth": 3, "heads": 4, "state_dim": STATE, "action_dim": ACTION,
    "language_dim": LANGUAGE, "max_language_tokens": 6,
}  # fmt: skip


@pytest.fixture(scope="session")
def network() -> Callable[..., RDT]:
    """``network(depth=2)``: random weights in the head, too; an untrained network would predict zero."""

    def make(**changes: Any) -> RDT:
        torch.manual_seed(0)
        model = RDT(**{**SIZES, "image_encoder": "none", **changes}).eval()
        for parameter in model.head.mlp.fc2.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return model

    return make


@pytest.fixture(scope="session")
def batch() -> Callable[..., PolicyBatch]:
    """``batch(3, pictures=(2, 3, 8, 8))``: observations; every second instruction has one token of three."""

    def make(items: int = 2, *, state: int = STATE, pictures: tuple[int, ...] | None = None) -> PolicyBatch:
        generator = torch.Generator().manual_seed(7)
        tokens = torch.arange(3).expand(items, 3)
        return PolicyBatch(
            state=torch.randn(items, state, generator=generator),
            language=torch.randn(items, 3, LANGUAGE, generator=generator),
            language_mask=tokens < torch.tensor([3, 1] * items)[:items, None],
            control_frequency=torch.full((items,), 25.0),
            images=None if pictures is None else torch.rand(items, *pictures, generator=generator),
        )

    return make


@pytest.fixture(scope="session")
def noise() -> Callable[..., Tensor]:
    """``noise(3)``: what the sampling of three items starts from, always the same."""

    def make(items: int = 2, actions: int = ACTION) -> Tensor:
        return torch.randn(items, 4, actions, generator=torch.Generator().manual_seed(9))

    return make
