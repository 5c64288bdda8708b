"""Self-attention: one fused projection, a `Pattern`, and torch's scaled dot product.

The module follows diffusers' conventions (processor object, `is_cross_attention`, registered processor), so that its
guiders (PAG, SLG, ...) and caches (pyramid broadcast, FasterCache, ...) work on it as they are.

Shapes: b batch, n tokens, d width, h heads, e head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.hooks._helpers import AttentionProcessorMetadata, AttentionProcessorRegistry
from diffusers.models.attention import AttentionModuleMixin
from jaxtyping import Float
from torch import Tensor, nn

from polydit.core.nn.linear import linear
from polydit.core.nn.patterns import Pattern


def attend(
    q_bhne: Float[Tensor, "b h q e"],
    k_bhne: Float[Tensor, "b h k e"],
    v_bhne: Float[Tensor, "b h k e"],
    pattern: Pattern | None = None,
) -> Float[Tensor, "b h q e"]:
    """Softmax attention under a pattern; None = everyone attends to everyone.

    While training on a CPU, bf16 attention runs in float32: there the backward pass of
    `scaled_dot_product_attention` for short sequences is about 12 times slower in bf16 (torch 2.13, measured).
    """
    if q_bhne.device.type == "cpu" and q_bhne.requires_grad and q_bhne.dtype == torch.bfloat16:
        with torch.autocast("cpu", enabled=False):
            return attend(q_bhne.float(), k_bhne.float(), v_bhne.float(), pattern).to(q_bhne.dtype)
    if pattern is None:
        return F.scaled_dot_product_attention(q_bhne, k_bhne, v_bhne)
    q, k, v = pattern.split(q_bhne), pattern.split(k_bhne), pattern.split(v_bhne)
    return pattern.merge(F.scaled_dot_product_attention(q, k, v, attn_mask=pattern.mask()))


class SelfAttentionProcessor:
    """Projections → heads → `attend` → output projection. Replaceable through `SelfAttention.set_processor`."""

    def __call__(
        self, attn: SelfAttention, hidden_states: Float[Tensor, "b n d"], pattern: Pattern | None = None
    ) -> Float[Tensor, "b n d"]:
        q_bhne, k_bhne, v_bhne = (
            linear(hidden_states, attn.qkv)
            .unflatten(-1, (3, attn.heads, -1))
            .permute(2, 0, 3, 1, 4)
            .unbind(0)
        )
        if attn.norm_q is not None and attn.norm_k is not None:
            q_bhne, k_bhne = attn.norm_q(q_bhne), attn.norm_k(k_bhne)
        mixed = attend(q_bhne, k_bhne, v_bhne, pattern)
        return linear(mixed.transpose(1, 2).flatten(2), attn.out)


class SelfAttention(nn.Module, AttentionModuleMixin):
    """Multi-head self-attention (Vaswani et al. 2017, equation 1) with one fused q, k, v projection.

    Args:
        width: Token width d; a multiple of `heads`.
        heads: Number of heads.
        qk_norm: "rms" or "layer" normalises q and k per head before the product; None does not.
        eps: Epsilon of that norm.

    The rows of `qkv.weight` are ordered (q|k|v, heads, head width), as in timm and `nn.MultiheadAttention`.
    """

    _default_processor_cls = SelfAttentionProcessor
    is_cross_attention = False

    def __init__(self, width: int, heads: int, *, qk_norm: str | None = None, eps: float = 1e-6) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.fused_projections = True
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        norm = {None: None, "rms": nn.RMSNorm, "layer": nn.LayerNorm}[qk_norm]
        self.norm_q = norm(width // heads, eps=eps) if norm else None
        self.norm_k = norm(width // heads, eps=eps) if norm else None
        self.processor = SelfAttentionProcessor()

    def forward(
        self, hidden_states: Float[Tensor, "b n d"], pattern: Pattern | None = None
    ) -> Float[Tensor, "b n d"]:
        """Mix tokens; shape in = shape out."""
        return self.processor(self, hidden_states, pattern)


AttentionProcessorRegistry.register(
    SelfAttentionProcessor,
    AttentionProcessorMetadata(
        skip_processor_output_fn=lambda self, attn, hidden_states, *_, **__: hidden_states
    ),
)
