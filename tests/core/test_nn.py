"""The parts of the networks against formulas and against torch's and diffusers' own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import PatchEmbed as DiffusersPatchEmbed
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import nn

from polydit.core.models.dit import DiT
from polydit.core.nn import (
    MODULATIONS,
    BlockConfig,
    DiTBlock,
    Padding,
    PatchEmbed,
    Segments,
    SelfAttention,
    Window,
    attend,
    patchify,
    sincos_grid,
    unpatchify,
)
from polydit.core.nn.embeddings import drop_labels
from polydit.core.nn.linear import ACTIVATIONS, linear
from polydit.core.nn.patterns import Causal, Full, padding_of


def qkv(tokens: int, batch: int = 2, heads: int = 3, width: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    return [torch.randn(batch, heads, tokens, width, generator=generator) for _ in range(3)]


def window_mask(grid: tuple[int, ...], window: tuple[int, ...]) -> torch.Tensor:
    cells = torch.cartesian_prod(*(torch.arange(g) // w for g, w in zip(grid, window, strict=True)))
    cells = cells.reshape(-1, len(grid))
    return (cells[:, None] == cells[None]).all(-1)


@pytest.mark.parametrize(("grid", "window"), [((12,), (3,)), ((4, 6), (2, 3)), ((4, 2, 6), (2, 2, 3))])
def test_window_attention_is_attention_under_the_window_mask(
    grid: tuple[int, ...], window: tuple[int, ...]
) -> None:
    q, k, v = qkv(tokens=int(torch.tensor(grid).prod()))
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=window_mask(grid, window))
    torch.testing.assert_close(attend(q, k, v, Window(grid, window)), expected)


def test_window_that_does_not_divide_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) does not divide the token grid \(8,\)"):
        Window((8,), (3,))


def test_padding_does_not_change_real_tokens() -> None:
    attention = SelfAttention(24, 3)
    x = torch.randn(1, 5, 24)
    padded = torch.cat([x, 100 * torch.randn(1, 4, 24)], dim=1)
    alone = attention(x)
    together = attention(padded, Padding(padding_of(torch.tensor([5]), 9)))
    torch.testing.assert_close(together[:, :5], alone)


def test_padding_of_full_rows_is_no_mask() -> None:
    assert isinstance(Padding.of(torch.ones(2, 3, dtype=torch.bool)), Full)
    assert isinstance(Padding.of(torch.tensor([[True, False]])), Padding)


def test_segments_attend_like_separate_rows() -> None:
    q, k, v = qkv(tokens=7, batch=1)
    packed = attend(q, k, v, Segments(torch.tensor([[0, 0, 0, 1, 1, 1, 1]])))
    separate = torch.cat([attend(*(x[:, :, s] for x in (q, k, v))) for s in (slice(3), slice(3, 7))], dim=2)
    torch.testing.assert_close(packed, separate)


def test_plain_block_is_torchs_pre_norm_layer() -> None:
    block = DiTBlock(
        BlockConfig(width=24, heads=3, mlp_ratio=2.0, modulated=False, norm_eps=1e-5, feed_forward="gelu")
    )
    layer = nn.TransformerEncoderLayer(24, 3, 48, 0.0, "gelu", batch_first=True, norm_first=True)
    ours = [*block.attn.qkv.parameters(), *block.attn.out.parameters(), *block.mlp.parameters()]
    theirs = [
        layer.self_attn.in_proj_weight,
        layer.self_attn.in_proj_bias,
        *layer.self_attn.out_proj.parameters(),
    ]
    theirs += [*layer.linear1.parameters(), *layer.linear2.parameters()]
    with torch.no_grad():
        for target, source in zip(ours, theirs, strict=True):
            target.copy_(source)
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(block(x), layer(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 7e-2)])
@pytest.mark.parametrize("shape", [(2, 7, 48), (0, 7, 48), (5, 48)])
def test_fused_linear_is_the_plain_one(
    activation: str | None, dtype: torch.dtype, tolerance: float, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(48, 96).to(dtype), 2 * torch.randn(shape).to(dtype)
    plain = linear(x, layer, activation)  # with gradients, so not fused
    assert plain.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(linear(x, layer, activation), plain, atol=tolerance, rtol=0.0)


def test_fused_linear_leaves_hooked_layers_alone() -> None:
    layer, seen = nn.Linear(4, 4), []
    layer.register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        linear(torch.randn(2, 4), layer, "gelu")
    assert seen == [1]


@pytest.mark.parametrize("kind", MODULATIONS)
def test_untrained_modulation_makes_blocks_nearly_the_identity(kind: str) -> None:
    modulator = MODULATIONS[kind](16, 3)
    if kind == "adaln":
        modulator.reset_parameters()
    table = modulator(torch.randn(2, 16))
    assert table.blocks.shape == (2, 3, 6, 16)
    assert table.final.shape == (2, 2, 16)
    block, x = DiTBlock(BlockConfig(width=16, heads=2)), torch.randn(2, 5, 16)
    change = block(x, table.blocks[:, 0]) - x
    assert change.abs().mean() < (1e-7 if kind == "adaln" else 1.0)


def test_rows_of_a_modulation_table_are_those_of_the_expanded_condition() -> None:
    modulator = MODULATIONS["adaln"](8, 2)
    conditions, index = torch.randn(2, 8), torch.tensor([1, 0, 1])
    torch.testing.assert_close(modulator(conditions).rows(index).blocks, modulator(conditions[index]).blocks)


@pytest.mark.parametrize("shape", [(8,), (4, 6), (2, 4, 6)])
def test_patches_go_back_to_the_same_grid(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *shape)
    patch = (2,) * len(shape)
    tokens = patchify(x, patch)
    # patchify is (channel, patch), unpatchify (patch, channel): swap before going back
    swapped = tokens.unflatten(-1, (3, -1)).transpose(-1, -2).flatten(-2)
    assert torch.equal(unpatchify(swapped, [s // 2 for s in shape], patch), x)


def test_patch_embedding_is_the_convolution_of_diffusers() -> None:
    theirs = DiffusersPatchEmbed(
        height=8, width=8, patch_size=2, in_channels=4, embed_dim=16, pos_embed_type=None
    )
    ours = PatchEmbed(4, (2, 2), 16)
    ours.load_state_dict({"linear.weight": theirs.proj.weight.flatten(1), "linear.bias": theirs.proj.bias})
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=1e-5)


def test_position_table_is_that_of_published_dit() -> None:
    expected = get_2d_sincos_pos_embed(32, 4, base_size=4, output_type="pt", device=torch.device("cpu"))
    torch.testing.assert_close(sincos_grid((4, 4), 32), expected.float(), atol=1e-6, rtol=1e-5)


def test_position_table_refuses_an_uneven_width() -> None:
    with pytest.raises(ValueError, match="not a multiple of 6"):
        sincos_grid((2, 2, 2), 16)


def test_dropped_labels_are_the_same_for_the_same_generator() -> None:
    labels = torch.arange(1, 1001)
    first, second = (drop_labels(labels, 0, 0.1, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert 60 < int((first == 0).sum()) < 140
    assert torch.equal(drop_labels(labels, 0, 0.0), labels)


def test_bf16_attention_on_the_cpu_has_gradients_close_to_float32() -> None:
    exact = [x.requires_grad_() for x in qkv(tokens=6)]
    rough = [x.detach().bfloat16().requires_grad_() for x in exact]
    attend(*exact).square().sum().backward()
    attend(*rough).float().square().sum().backward()
    for a, b in zip(exact, rough, strict=True):
        assert b.grad is not None and b.grad.dtype == torch.bfloat16
        torch.testing.assert_close(b.grad.float(), a.grad, atol=0.1, rtol=0.1)


def test_the_slowest_axis_may_come_first() -> None:
    table = sincos_grid((2, 3, 4), 24, slowest_first=True).reshape(2, 3, 4, 3, 8)
    assert torch.equal(
        table[0, :, :, 0], table[0, :1, :1, 0].expand(3, 4, 8)
    )  # x alone decides the first channels
    assert not torch.equal(table[0, 0, 0, 0], table[1, 0, 0, 0])


def test_a_causal_token_does_not_see_what_follows() -> None:
    q = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    other = q.clone()
    other[:, :, 3:] += 1.0
    pattern = Causal.of(5, q.device)
    moved = (attend(q, q, q, pattern) - attend(other, other, other, pattern)).abs().amax((0, 1, 3))
    assert (moved[:3] == 0).all() and (moved[3:] > 0).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_are_traced_as_one_graph(dtype: torch.dtype) -> None:
    """Without a break, since each would cost a call from Python into the compiled code."""
    network = DiT(sample_size=8, width=24, depth=2, heads=2, num_classes=3).eval().to(dtype)
    x, time, label = torch.randn(1, 4, 8, 8, dtype=dtype), torch.tensor([500.0]), torch.tensor([1])
    with torch.no_grad():
        modulation = network.modulate(time, label)
        plain = network(x, modulation=modulation).sample
        network.compile_repeated_blocks(fullgraph=True, backend="eager")
        torch.testing.assert_close(network(x, modulation=modulation).sample, plain, rtol=0, atol=0)
