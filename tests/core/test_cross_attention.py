"""Cross-attention against torch's own, alone and in a block."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polydit.core.nn import BlockConfig, CrossAttention, DiTBlock, Padding
from polydit.core.nn.patterns import padding_of

WIDTH, HEADS = 24, 3


@pytest.fixture
def streams() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, a context, and which of its tokens are real."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 5, WIDTH, generator=generator)
    context = torch.randn(2, 7, WIDTH, generator=generator)
    return x, context, padding_of(torch.tensor([7, 4]), 7)


def test_cross_attention_is_torchs(streams: tuple[torch.Tensor, ...]) -> None:
    x, context, valid = streams
    ours, theirs = CrossAttention(WIDTH, HEADS), nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.kv.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.kv.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    expected, _ = theirs(x, context, context, key_padding_mask=~valid, need_weights=False)
    torch.testing.assert_close(ours(x, context, Padding(valid)), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("modulated", [False, True])
def test_known_keys_and_values_give_the_same(modulated: bool, streams: tuple[torch.Tensor, ...]) -> None:
    x, context, valid = streams
    config = BlockConfig(
        width=WIDTH, heads=HEADS, cross_attention=True, modulated=modulated, qk_norm="rms", norm="rms"
    )
    block, modulation = DiTBlock(config), torch.randn(2, 6, WIDTH) if modulated else None
    expected = block(x, modulation, context=context, context_pattern=Padding(valid))
    known = block.cross.keys_values(context)
    given = block(x, modulation, context=known, context_pattern=Padding(valid))
    assert torch.equal(given, expected)
    other = context.masked_fill(~valid[..., None], 100.0)  # padding does not count, the rest does
    assert torch.equal(block(x, modulation, context=other, context_pattern=Padding(valid)), expected)
    assert not torch.allclose(block(x, modulation, context=other), expected)


def test_a_block_without_its_context_is_refused() -> None:
    block = DiTBlock(BlockConfig(width=WIDTH, heads=HEADS, modulated=False, cross_attention=True))
    with pytest.raises(ValueError, match="needs a context"):
        block(torch.randn(1, 2, WIDTH))
