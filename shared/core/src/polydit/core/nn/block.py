"""The transformer block that every network here repeats, each part chosen by the config.

Shapes: b batch, n tokens, k context tokens, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from jaxtyping import Float
from torch import Tensor, nn

from polydit.core.nn.attention import CrossAttention, KeysValues, SelfAttention
from polydit.core.nn.feed_forward import feed_forward
from polydit.core.nn.norms import NORMS
from polydit.core.nn.patterns import Pattern


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockConfig:
    """What a block is made of.

    Args:
        width: Token width d.
        heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward over `width`.
        feed_forward: "gelu_tanh", "gelu", "silu" or "swiglu".
        modulated: True takes shifts, scales and gates (adaLN) and has norms without weights; False is a plain
            pre-norm block with weighted norms.
        cross_attention: Whether the tokens also attend to a context, after themselves and before the feed-forward.
        norm: A key of `NORMS`.
        qk_norm: None, or a key of `NORMS`.
        norm_eps: Epsilon of all norms.
    """

    width: int
    heads: int
    mlp_ratio: float = 4.0
    feed_forward: str = "gelu_tanh"
    modulated: bool = True
    cross_attention: bool = False
    norm: str = "layer"
    qk_norm: str | None = None
    norm_eps: float = 1e-6


class DiTBlock(nn.Module):
    """Pre-norm token mixer and feed-forward, modulated by adaLN (Peebles & Xie 2023, figure 3) or plain.

    With m = (shift₁, 1+scale₁, gate₁, shift₂, 1+scale₂, gate₂)::

        h ← h + gate₁ · attn(norm₁(h) · (1+scale₁) + shift₁)
        h ← h + cross(norm_cross(h), context)                    with `cross_attention`
        h ← h + gate₂ · mlp(norm₂(h) · (1+scale₂) + shift₂)
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        norm, width, eps, affine = NORMS[config.norm], config.width, config.norm_eps, not config.modulated
        self.norm1 = norm(width, eps=eps, elementwise_affine=affine)
        self.attn = SelfAttention(width, config.heads, qk_norm=config.qk_norm, eps=eps)
        self.norm_cross = norm(width, eps=eps) if config.cross_attention else None
        self.cross = (
            CrossAttention(width, config.heads, qk_norm=config.qk_norm, eps=eps)
            if config.cross_attention
            else None
        )
        self.norm2 = norm(width, eps=eps, elementwise_affine=affine)
        self.mlp = feed_forward(config.feed_forward, config.width, int(config.width * config.mlp_ratio))

    def forward(
        self,
        hidden_states: Float[Tensor, "b n d"],
        modulation: Float[Tensor, "b 6 d"] | None = None,
        pattern: Pattern | None = None,
        context: Float[Tensor, "b k d"] | KeysValues | None = None,
        context_pattern: Pattern | None = None,
    ) -> Float[Tensor, "b n d"]:
        """One block; shape in = shape out.

        Args:
            hidden_states: Tokens.
            modulation: The block's slice of a `ModulationTable`; None for a plain block.
            pattern: Which tokens attend to which.
            context: What `cross` attends to, or its keys and values if they are known already.
            context_pattern: Which tokens of the context are attended to.
        """
        if modulation is None:
            hidden_states = hidden_states + self.attn(self.norm1(hidden_states), pattern)
            hidden_states = self._attend_to(context, hidden_states, context_pattern)
            return hidden_states + self.mlp(self.norm2(hidden_states))
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.unsqueeze(2).unbind(1)
        mixed = self.attn(torch.addcmul(shift1, self.norm1(hidden_states), scale1), pattern)
        hidden_states = torch.addcmul(hidden_states, gate1, mixed)
        hidden_states = self._attend_to(context, hidden_states, context_pattern)
        fed = self.mlp(torch.addcmul(shift2, self.norm2(hidden_states), scale2))
        return torch.addcmul(hidden_states, gate2, fed)

    def _attend_to(
        self,
        context: Float[Tensor, "b k d"] | KeysValues | None,
        hidden_states: Float[Tensor, "b n d"],
        pattern: Pattern | None,
    ) -> Float[Tensor, "b n d"]:
        if self.cross is None or self.norm_cross is None:
            return hidden_states
        if context is None:
            raise ValueError("a block with cross-attention needs a context")
        return hidden_states + self.cross(self.norm_cross(hidden_states), context, pattern)


class FinalLayer(nn.Module):
    """Modulated norm and projection to the output's channels.

    Args:
        width: Token width d.
        channels: Output channels per token.
        norm_eps: Epsilon of the norm.
    """

    def __init__(self, width: int, channels: int, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=norm_eps, elementwise_affine=False)
        self.linear = nn.Linear(width, channels)

    def reset_parameters(self) -> None:
        """Zeros: an untrained network predicts zero."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self, hidden_states: Float[Tensor, "b n d"], modulation: Float[Tensor, "b 2 d"]
    ) -> Float[Tensor, "b n c"]:
        shift, scale = modulation.unsqueeze(2).unbind(1)
        return self.linear(torch.addcmul(shift, self.norm(hidden_states), scale))


def init_transformer(model: nn.Module) -> None:
    """Xavier-uniform matrices and zero biases (Peebles & Xie 2023, appendix), then each part's own start values."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset) and not isinstance(module, (nn.Linear, nn.LayerNorm)):
            reset()


TransformerBlockRegistry.register(DiTBlock, TransformerBlockMetadata(return_hidden_states_index=0))
