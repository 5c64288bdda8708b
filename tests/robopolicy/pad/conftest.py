"""A small PAD, what it sees, and noisy futures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.pad.network import Modalities, PADTransformer

SMALL: dict[str, Any] = {
    "sample_size": 16, "patch_size": 4, "in_channels": 3, "future_frames": 2, "horizon": 4, "action_dim": 2,
    "state_dim": 3, "text_dim": 5, "width": 32, "depth": 2, "heads": 4,
}  # fmt: skip


@pytest.fixture(scope="session")
def network() -> Callable[..., PADTransformer]:
    """``network(joint=False)``: a small one, with weights that make every part matter unless not `random`."""

    def make(*, random: bool = True, **changes: Any) -> PADTransformer:
        torch.manual_seed(0)
        model = PADTransformer(**{**SMALL, **changes}).eval()
        if random:
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.1)
        return model

    return make


@pytest.fixture(scope="session")
def batch() -> Callable[..., PolicyBatch]:
    """``batch(3, actions=None)``: observations and what follows them."""

    def make(items: int = 3, *, seed: int = 0, **changes: Any) -> PolicyBatch:
        g = torch.Generator().manual_seed(seed)
        filled: dict[str, Any] = {
            "state": torch.randn(items, 6, generator=g),
            "language": torch.randn(items, 2, 5, generator=g),
            "language_mask": torch.tensor([[True, False]]).repeat(items, 1),
            "control_frequency": torch.full((items,), 20.0),
            "images": torch.rand(items, 1, 3, 16, 16, generator=g),
            "actions": torch.randn(items, 4, 2, generator=g),
            "action_is_pad": torch.zeros(items, 4, dtype=torch.bool),
            "future_images": torch.rand(items, 2, 3, 16, 16, generator=g),
        }
        return PolicyBatch(**{**filled, **changes})

    return make


@pytest.fixture(scope="session")
def part() -> Callable[..., tuple[Modalities, Modalities]]:
    """``noisy, now = part(depth_maps=False)``: noisy futures and the present, for calls of the network itself."""

    def make(items: int = 2, seed: int = 3, **there: bool) -> tuple[Modalities, Modalities]:
        g = torch.Generator().manual_seed(seed)
        noisy = {
            "images": torch.randn(items, 2, 3, 16, 16, generator=g),
            "actions": torch.randn(items, 4, 2, generator=g),
            "depth_maps": torch.randn(items, 2, 16, 16, generator=g),
        }
        now = {
            "images": torch.randn(items, 1, 3, 16, 16, generator=g),
            "actions": torch.randn(items, 1, 3, generator=g),
            "depth_maps": torch.randn(items, 1, 16, 16, generator=g),
        }
        return Modalities(**{k: v for k, v in noisy.items() if there.get(k, True)}), Modalities(**now)

    return make
