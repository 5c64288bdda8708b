"""Self- and cross-attention: fused projections, a `Pattern`, and torch's scaled dot product.

The modules follow diffusers' conventions (processor object, `is_cross_attention`, registered processor), so that its
guiders (PAG, SLG, ...) and caches (pyramid broadcast, FasterCache, ...) work on them as they are.

Shapes: b batch, n tokens, k context tokens, d width, h heads, e head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.hooks._helpers import AttentionProcessorMetadata, AttentionProcessorRegistry
from diffusers.models.attention import AttentionModuleMixin
from jaxtyping import Float
from torch import Tensor, nn

from polydit.core.nn.linear import linear
from polydit.core.nn.norms import NORMS
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
    return pattern.attend(q_bhne, k_bhne, v_bhne)


class SelfAttentionProcessor:
    """Projections → heads → `attend` → output projection. Replaceable through `SelfAttention.set_processor`."""

    def __call__(
        self, attn: SelfAttention, hidden_states: Float[Tensor, "b n d"], pattern: Pattern | None = None
    ) -> Float[Tensor, "b n d"]:
        return attn.mix(*attn.queries_keys_values(hidden_states), pattern)


class SelfAttention(nn.Module, AttentionModuleMixin):
    """Multi-head self-attention (Vaswani et al. 2017, equation 1) with one fused q, k, v projection.

    Args:
        width: Token width d; a multiple of `heads`.
        heads: Number of heads.
        qk_norm: A key of `NORMS`: q and k are normalised per head before the product; None = they are not.
        eps: Epsilon of that norm.

    The rows of `qkv.weight` are ordered (q|k|v, heads, head width), as in timm and `nn.MultiheadAttention`.
    """

    _default_processor_cls = SelfAttentionProcessor
    is_cross_attention = False

    def __init__(self, width: int, heads: int, *, qk_norm: str | None = None, eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.fused_projections = True
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_q, self.norm_k = _head_norms(width, heads, qk_norm, eps)
        self.processor = SelfAttentionProcessor()

    def queries_keys_values(
        self, hidden_states: Float[Tensor, "b n d"]
    ) -> tuple[Float[Tensor, "b h n e"], Float[Tensor, "b h n e"], Float[Tensor, "b h n e"]]:
        """What the tokens ask, answer to and give, in heads, with `qk_norm`."""
        projected = linear(hidden_states, self.qkv).unflatten(-1, (3, self.heads, -1))
        q_bhne, k_bhne, v_bhne = projected.permute(2, 0, 3, 1, 4).unbind(0)
        if self.norm_q is not None and self.norm_k is not None:
            q_bhne, k_bhne = self.norm_q(q_bhne), self.norm_k(k_bhne)
        return q_bhne, k_bhne, v_bhne

    def mix(
        self,
        q_bhne: Float[Tensor, "b h n e"],
        k_bhne: Float[Tensor, "b h k e"],
        v_bhne: Float[Tensor, "b h k e"],
        pattern: Pattern | None = None,
    ) -> Float[Tensor, "b n d"]:
        """`attend`, then the output projection; the keys may be more than the queries."""
        mixed = attend(q_bhne, k_bhne, v_bhne, pattern)
        return linear(mixed.transpose(1, 2).flatten(2), self.out)

    def forward(
        self, hidden_states: Float[Tensor, "b n d"], pattern: Pattern | None = None
    ) -> Float[Tensor, "b n d"]:
        """Mix tokens; shape in = shape out."""
        return self.processor(self, hidden_states, pattern)


@dataclass(frozen=True, eq=False)
class KeysValues:
    """Keys and values of a context. A sampler whose context stays the same computes them once, not in every step."""

    keys: Float[Tensor, "b h k e"]
    values: Float[Tensor, "b h k e"]


class CrossAttentionProcessor:
    """Queries from the tokens, keys and values from the context → `attend` → output projection."""

    def __call__(
        self,
        attn: CrossAttention,
        hidden_states: Float[Tensor, "b n d"],
        context: Float[Tensor, "b k d"] | KeysValues,
        pattern: Pattern | None = None,
    ) -> Float[Tensor, "b n d"]:
        q_bhne = linear(hidden_states, attn.q).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        if attn.norm_q is not None:
            q_bhne = attn.norm_q(q_bhne)
        known = context if isinstance(context, KeysValues) else attn.keys_values(context)
        mixed = attend(q_bhne, known.keys, known.values, pattern)
        return linear(mixed.transpose(1, 2).flatten(2), attn.out)


class CrossAttention(nn.Module, AttentionModuleMixin):
    """Multi-head attention of tokens over a context, with one fused k, v projection.

    Args:
        width: Token width d; a multiple of `heads`.
        heads: Number of heads.
        qk_norm: As in `SelfAttention`.
        eps: Epsilon of that norm.

    The rows of `kv.weight` are ordered (k|v, heads, head width).
    """

    _default_processor_cls = CrossAttentionProcessor
    is_cross_attention = True

    def __init__(self, width: int, heads: int, *, qk_norm: str | None = None, eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.fused_projections = True
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm_q, self.norm_k = _head_norms(width, heads, qk_norm, eps)
        self.processor = CrossAttentionProcessor()

    def keys_values(self, context: Float[Tensor, "b k d"]) -> KeysValues:
        """What `forward` needs of a context."""
        keys, values = linear(context, self.kv).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return KeysValues(keys if self.norm_k is None else self.norm_k(keys), values)

    def forward(
        self,
        hidden_states: Float[Tensor, "b n d"],
        context: Float[Tensor, "b k d"] | KeysValues,
        pattern: Pattern | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Mix the context into the tokens; shape in = shape out. `Padding` tells the real tokens of a context."""
        return self.processor(self, hidden_states, context, pattern)


def _head_norms(
    width: int, heads: int, kind: str | None, eps: float
) -> tuple[nn.Module | None, nn.Module | None]:
    """The norms of q and of k."""
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")
    if kind is None:
        return None, None
    return NORMS[kind](width // heads, eps=eps), NORMS[kind](width // heads, eps=eps)


for processor in (SelfAttentionProcessor, CrossAttentionProcessor):
    AttentionProcessorRegistry.register(
        processor,
        # diffusers calls it with the attention module and that module's own arguments
        AttentionProcessorMetadata(
            skip_processor_output_fn=lambda attn, hidden_states, *_, **__: hidden_states
        ),
    )
