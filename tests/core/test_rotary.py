"""Rotary positions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from polydit.core.nn.disk import Disk
from polydit.core.nn.patterns import Full
from polydit.core.nn.rotary import Rotary


def random_heads(tokens: int, count: int = 3) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 2, tokens, 16) for _ in range(count)]


def test_the_product_of_a_query_and_a_key_depends_on_their_distance_alone() -> None:
    rotary = Rotary.of(Full(), (6, 7), 16)
    query, key = (x[:, :, :1].expand(-1, -1, 42, -1) for x in random_heads(1, 2))
    scores = rotary.turned(query) @ rotary.turned(key).mT

    def score(row: int, column: int, down: int, across: int) -> torch.Tensor:
        return scores[:, :, 7 * row + column, 7 * (row + down) + column + across]

    torch.testing.assert_close(score(0, 0, 2, 3), score(3, 2, 2, 3))
    assert not torch.allclose(score(0, 0, 2, 3), score(0, 0, 3, 2), atol=1e-3)


def test_a_rotation_keeps_lengths() -> None:
    (x,) = random_heads(20, 1)
    turned = Rotary.of(Full(), (4, 5), 16).turned(x)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert not torch.allclose(turned, x)


def test_local_attention_does_the_same_wherever_its_grid_lies() -> None:
    q, k, v = random_heads(12 * 12)
    whole = Rotary.of(Disk((12, 12), 3), (12, 12), 16, theta=100.0).attend(q, k, v)
    parts = [x.unflatten(2, (12, 12))[:, :, 3:, 2:].flatten(2, 3) for x in (q, k, v)]
    part = Rotary.of(Disk((9, 10), 3), (9, 10), 16, theta=100.0).attend(*parts)
    inside = whole.unflatten(2, (12, 12))[:, :, 5:, 4:]  # two tokens in, where no disk is cut
    torch.testing.assert_close(part.unflatten(2, (9, 10))[:, :, 2:, 2:], inside)


def test_a_head_must_be_shared_evenly_among_the_axes() -> None:
    with pytest.raises(ValueError, match="head width 14 is not a multiple of 4"):
        Rotary.of(Full(), (2, 2), 14)


def test_keys_of_a_context_can_be_turned_once() -> None:
    q, k, v = random_heads(20)
    rotary = Rotary.of(Full(), (4, 5), 16)
    known = replace(rotary, keys_turned=True)
    torch.testing.assert_close(known.attend(q, rotary.turned(k), v), rotary.attend(q, k, v))
