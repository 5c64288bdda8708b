"""Norms against their formulas."""

from __future__ import annotations

import pytest
import torch

from polydit.core.nn import NORMS, BlockConfig, DiTBlock, SelfAttention, VarianceNorm


def tokens(width: int = 16) -> torch.Tensor:
    return 3.0 + 2.0 * torch.randn(2, 5, width, generator=torch.Generator().manual_seed(0))


def test_variance_norm_divides_by_the_deviation_and_does_not_centre() -> None:
    norm, x = VarianceNorm(16, eps=1e-3), tokens()
    torch.nn.init.normal_(norm.weight)
    expected = x / (x.var(-1, correction=1, keepdim=True) + 1e-3).sqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)
    root_mean_square = torch.nn.RMSNorm(16, eps=1e-3)(x) * norm.weight
    assert (norm(x) - root_mean_square).abs().max() > 0.5  # the two are not the same norm


@pytest.mark.parametrize("width", [2, 8, 64])
def test_variance_norm_is_the_same_with_and_without_gradients(width: int) -> None:
    norm, x = VarianceNorm(width, eps=1e-3), tokens(width)
    with torch.no_grad():
        fused = norm(x)
    torch.testing.assert_close(fused, norm(x).detach(), atol=1e-6, rtol=1e-5)


def test_variance_norm_has_the_gradient_of_its_formula() -> None:
    norm = VarianceNorm(6).double()
    assert torch.autograd.gradcheck(norm, (tokens(6).double().requires_grad_(),))


def test_variance_norm_keeps_the_precision_of_its_input() -> None:
    norm, x = VarianceNorm(16), tokens()
    half = norm(x.bfloat16())  # with float32 weights, as under autocast
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), norm(x), atol=0.05, rtol=0.02)


@pytest.mark.parametrize("kind", NORMS)
def test_every_norm_serves_blocks_and_heads(kind: str) -> None:
    x = tokens()
    attention = SelfAttention(16, 2, qk_norm=kind)
    assert type(attention.norm_q) is type(attention.norm_k) is NORMS[kind]
    block = DiTBlock(BlockConfig(width=16, heads=2, modulated=False, norm=kind, qk_norm=kind))
    assert type(block.norm1) is type(block.norm2) is NORMS[kind]
    assert block(x).shape == x.shape
    modulated = DiTBlock(BlockConfig(width=16, heads=2, norm=kind))
    assert modulated.norm1.weight is None
