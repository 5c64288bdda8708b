"""Attention over disks: tiles against dense attention with the mask, alone and inside a network."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from polydit.core.models.dit import DiT
from polydit.core.nn import attend
from polydit.core.nn.disk import Disk
from polydit.core.nn.patterns import Pattern

CASES = [
    Disk((24, 24), 4),
    Disk((23, 37), 4, trailing=5),  # no tile divides these
    Disk((80, 9), 3, leading=2, trailing=3),  # tiles along one axis only
    Disk((5, 6), 8, leading=4),  # few tokens: no tiles
    Disk((21, 21), 20, leading=1),  # one tile for all
    Disk((29, 31), 1),  # itself alone
    Disk((1, 450), 5, trailing=1),  # a line
]


def qkv(pattern: Disk, batch: int = 2, heads: int = 3, width: int = 8) -> list[torch.Tensor]:
    tokens = pattern.leading + math.prod(pattern.grid) + pattern.trailing
    generator = torch.Generator().manual_seed(tokens)
    return [torch.randn(batch, heads, tokens, width, generator=generator) for _ in range(3)]


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, pattern: Disk) -> torch.Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=pattern.mask())


def test_mask_is_the_disk_and_the_global_tokens() -> None:
    pattern = Disk((4, 5), 3, leading=1, trailing=2)
    cells = [(y, x) for y in range(4) for x in range(5)]
    places = [None, *cells, None, None]
    expected = [
        [q is None or k is None or (q[0] - k[0]) ** 2 + (q[1] - k[1]) ** 2 < 9 for k in places]
        for q in places
    ]
    assert pattern.mask()[0, 0].tolist() == expected


@pytest.mark.parametrize("pattern", CASES, ids=repr)
def test_tiles_are_dense_attention_with_the_mask(pattern: Disk) -> None:
    q, k, v = qkv(pattern)
    torch.testing.assert_close(attend(q, k, v, pattern), dense(q, k, v, pattern), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("pattern", CASES, ids=repr)
def test_gradients_are_those_of_dense_attention(pattern: Disk) -> None:
    ours, theirs = ([x.requires_grad_() for x in qkv(pattern)] for _ in range(2))
    attend(*ours, pattern).square().sum().backward()
    dense(*theirs, pattern).square().sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=2e-6, rtol=1e-5)


def test_bfloat16_is_as_near_to_float32_as_dense_attention_is() -> None:
    pattern = CASES[1]
    exact = dense(*qkv(pattern), pattern)
    q, k, v = (x.bfloat16() for x in qkv(pattern))
    ours, theirs = attend(q, k, v, pattern), dense(q, k, v, pattern)
    assert ours.dtype == torch.bfloat16
    assert (ours.float() - exact).abs().mean() < 1.1 * (theirs.float() - exact).abs().mean()
    trained = [x.requires_grad_() for x in (q, k, v)]
    attend(*trained, pattern).float().square().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in trained)


def test_large_values_beyond_the_disk_do_not_leak() -> None:
    pattern = Disk((30, 30), 4)
    q, k, v = qkv(pattern)
    before = attend(q, k, v, pattern)
    k[:, :, 0], v[:, :, 0] = 50.0, 1e6
    moved = (attend(q, k, v, pattern) != before).any(-1).any(0).any(0).reshape(30, 30)
    y, x = torch.meshgrid(torch.arange(30), torch.arange(30), indexing="ij")
    assert not moved[y**2 + x**2 >= 16].any() and moved[0, 0]


@pytest.mark.parametrize(
    ("radius", "global_tokens", "sides"), [(6, 16, (8, 11)), (8, 16, (8, 12)), (16, 512, (12, 24))]
)
def test_tiles_grow_slowly_with_reach_and_global_tokens(
    radius: int, global_tokens: int, sides: tuple[int, int]
) -> None:
    for size in (64, 96, 127, 256):
        for axis in Disk((size, size), radius, trailing=global_tokens)._axes:
            assert sides[0] <= axis.tile <= sides[1]
            assert 0 <= axis.surplus < axis.tile


@pytest.mark.usefixtures("unchecked")
def test_compiled_in_one_graph_it_is_the_same() -> None:
    pattern = CASES[1]
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    ours, theirs = ([x.requires_grad_() for x in qkv(pattern)] for _ in range(2))
    out, expected = compiled(*ours, pattern), attend(*theirs, pattern)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_dit_with_disks_differs_from_full_attention_only_by_the_mask() -> None:
    torch.manual_seed(0)
    model = DiT(sample_size=(44, 40), patch_size=2, width=16, depth=2, heads=2, num_classes=3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # adaLN-Zero starts with every block switched off
    x, time, labels = torch.randn(2, 4, 44, 40), torch.tensor([1.0, 500.0]), torch.tensor([0, 3])
    height, width = model.grid
    pattern = Disk((height, width), 5)
    full = model(x, time, labels).sample
    model.patterns = [pattern] * 2
    local = model(x, time, labels).sample
    assert not torch.allclose(full, local, atol=1e-2)
    model.patterns = [Dense(pattern.grid, pattern.radius)] * 2
    torch.testing.assert_close(local, model(x, time, labels).sample, atol=1e-4, rtol=1e-4)


class Dense(Disk):
    """A disk that attends by its mask, as other patterns do."""

    attend = Pattern.attend


@pytest.mark.parametrize("arguments", [((0, 4), 3), ((4, 4), 0), ((4, 4), 3, -1), ((4, 4), 3, 0, -1)])
def test_impossible_sizes_are_refused(arguments: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="grid and radius start at 1"):
        Disk(*arguments)


def test_other_numbers_of_tokens_are_refused() -> None:
    q, k, v = qkv(Disk((4, 4), 2, trailing=1))
    with pytest.raises(ValueError, match="for 16 tokens; got 17 queries, 17 keys"):
        attend(q, k, v, Disk((4, 4), 2))
