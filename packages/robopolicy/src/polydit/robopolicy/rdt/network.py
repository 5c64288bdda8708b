"""RDT's transformer with its adaptors, composed of core parts.

Shapes: b items, h horizon, a action slots, s state slots, l language tokens, e language width, n tokens, d width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, cast

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from polydit.core.nn.attention import CrossAttention, KeysValues
from polydit.core.nn.block import BlockConfig, DiTBlock, init_transformer
from polydit.core.nn.embeddings import TimeEmbedding
from polydit.core.nn.feed_forward import FeedForward
from polydit.core.nn.norms import NORMS
from polydit.core.nn.patchify import PatchEmbed
from polydit.core.nn.patterns import Padding, Pattern
from polydit.robopolicy.rdt.conditions import Conditions
from polydit.robopolicy.rdt.positions import condition_positions, token_positions

IMAGE_ENCODERS = ("precomputed", "patches", "none")
# The published sizes; what they have in common is the default of `RDT`.
SIZES: dict[str, dict[str, Any]] = {
    "rdt-1b": {"width": 2048, "depth": 28, "heads": 32},  # 1 228.3 M parameters
    "rdt-170m": {"width": 1024, "depth": 14, "heads": 32},  # 166.2 M parameters
}


@dataclass(frozen=True, eq=False)
class Context:
    """What a block attends to besides its own tokens.

    Args:
        tokens: Tokens, or a block's keys and values of them.
        pattern: Which of them are real; None = all.
    """

    tokens: Float[Tensor, "b n d"] | KeysValues
    pattern: Pattern | None = None

    @classmethod
    def of(cls, tokens: Float[Tensor, "b n d"], valid: Bool[Tensor, "b n"] | None = None) -> Context:
        """Tokens, and True for the real ones."""
        return cls(tokens, None if valid is None else Padding(valid))

    def projected(self, cross: CrossAttention) -> Context:
        """The same with a block's keys and values instead of the tokens."""
        assert isinstance(self.tokens, Tensor)
        return Context(cross.keys_values(self.tokens), self.pattern)


class Head(nn.Module):
    """Norm, then an MLP from tokens to actions ("MLP decoder").

    Args:
        width: Token width d.
        action_dim: Action slots a.
        norm: A key of `NORMS`.
    """

    def __init__(self, width: int, action_dim: int, norm: str) -> None:
        super().__init__()
        self.norm = NORMS[norm](width, eps=1e-6)
        self.mlp = FeedForward(width, width, out=action_dim)

    def reset_parameters(self) -> None:
        """Zeros in the last layer: an untrained network predicts zero."""
        nn.init.zeros_(self.mlp.fc2.weight)
        nn.init.zeros_(self.mlp.fc2.bias)

    def forward(self, tokens: Float[Tensor, "b h d"]) -> Float[Tensor, "b h a"]:
        return self.mlp(self.norm(tokens))


def adaptor(inputs: int, width: int, layers: int) -> nn.Sequential:
    """From a condition's own width to the transformer's: `layers` matrices with tanh-GELU between them."""
    first, *rest = (nn.Linear(width if k else inputs, width) for k in range(layers))
    return nn.Sequential(first, *(part for layer in rest for part in (nn.GELU("tanh"), layer)))


class RDT(ModelMixin, ConfigMixin, CacheMixin, PeftAdapterMixin):
    """Denoises a chunk of actions; predicts the clean one.

    The tokens are [time, control frequency, state, action₀ .. action_{h-1}]. A block attends to its own tokens, then to
    a condition, then feeds each token forward; blocks 0, 2, ... take the instruction and blocks 1, 3, ... the pictures.
    Without pictures every block takes the instruction. There is no adaLN.

    Each number of state and action comes with a mask that tells whether its slot is in use.

    Args:
        horizon: Actions in a chunk h.
        action_dim: Action slots a.
        state_dim: State slots s; None = states live in the actions' slots and share their adaptor, as published.
        width: Token width d; a multiple of 4 and of `heads`.
        depth: Number of blocks.
        heads: Attention heads.
        language_dim: Width of the precomputed language tokens e.
        max_language_tokens: Most language tokens that there are positions for.
        image_encoder: "precomputed": pictures come as tokens of an encoder such as SigLIP. "patches": they come as
            pictures, and one matrix makes tokens of their patches. "none": there are no pictures.
        image_layout: Image tokens per axis, the slowest first, in the form of `condition_positions`; for "patches"
            (pictures, rows, columns) of patches.
        image_dim: Width of precomputed image tokens.
        patch_size: Height and width of a patch in pixels.
        norm: A key of `NORMS`, for all norms, q and k too. Published: "timm-1.0.3", the version that the published code
            pins; "rms" for weights that were trained with timm 1.0.13 or newer, or with apex.
    """

    _repeated_blocks = ["DiTBlock"]  # noqa: RUF012  diffusers reads class-level lists
    _no_split_modules = ["DiTBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["positions", "norm"]  # noqa: RUF012
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        horizon: int = 64,
        action_dim: int = 128,
        state_dim: int | None = None,
        width: int = 2048,
        depth: int = 28,
        heads: int = 32,
        language_dim: int = 4096,
        max_language_tokens: int = 1024,
        image_encoder: str = "precomputed",
        image_layout: Sequence[int] = (2, 3, -729),
        image_dim: int = 1152,
        patch_size: int = 16,
        norm: str = "timm-1.0.3",
    ) -> None:
        super().__init__()
        if image_encoder not in IMAGE_ENCODERS:
            expected = ", ".join(IMAGE_ENCODERS)
            raise ValueError(f"unknown image encoder {image_encoder!r}, expected one of {expected}")
        if width % 4:
            raise ValueError(f"width {width} is not a multiple of 4")
        block = BlockConfig(
            width=width,
            heads=heads,
            mlp_ratio=1.0,
            modulated=False,
            cross_attention=True,
            norm=norm,
            qk_norm=norm,
        )
        self.time_embed, self.frequency_embed = TimeEmbedding(width), TimeEmbedding(width)
        slots = action_dim if state_dim is None else state_dim
        self.state_adaptor = adaptor(2 * slots, width, layers=3)
        self.action_adaptor = None if state_dim is None else adaptor(2 * action_dim, width, layers=3)
        self.language_adaptor = adaptor(language_dim, width, layers=2)
        self.image_adaptor: nn.Module | None = None
        if image_encoder == "precomputed":
            self.image_adaptor = adaptor(image_dim, width, layers=2)
        elif image_encoder == "patches":
            self.image_adaptor = PatchEmbed(3, (patch_size, patch_size), width)
        self.positions = nn.Parameter(token_positions(horizon, width))
        self.language_positions = nn.Parameter(condition_positions(-max_language_tokens, width))
        self.image_positions = (
            None if image_encoder == "none" else nn.Parameter(condition_positions(image_layout, width))
        )
        self.blocks = nn.ModuleList(DiTBlock(block) for _ in range(depth))
        self.head = Head(width, action_dim, norm)
        self.gradient_checkpointing = False
        init_transformer(self)

    @property
    def image_tokens(self) -> int:
        """Tokens of all pictures together; 0 without pictures."""
        return 0 if self.image_adaptor is None else math.prod(map(abs, self.config.image_layout))

    @property
    def state_dim(self) -> int:
        """State slots s."""
        own = self.config.state_dim
        return int(self.config.action_dim if own is None else own)

    def forward(
        self,
        hidden_states: Float[Tensor, "b h a"],
        timestep: Float[Tensor, " b"] | Int[Tensor, " b"],
        conditions: Conditions,
        contexts: Sequence[Context] | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Predict the clean actions.

        Args:
            hidden_states: Noisy actions.
            timestep: 0 (data) .. 999 (noise).
            conditions: What to act on.
            contexts: From `contexts`, for the same conditions; None computes them here.

        Returns:
            Actions, in the dtype of the weights.
        """
        if contexts is None:
            contexts = self.alternate(self.embed_context(conditions))
        adapt_actions = self.state_adaptor if self.action_adaptor is None else self.action_adaptor
        action_mask = conditions.action_mask[:, None].expand_as(hidden_states)
        dtype = (
            self.positions.dtype
        )  # diffusers' `self.dtype` walks through all modules: a tenth of a small chunk
        state = torch.cat([conditions.state, conditions.state_mask], dim=-1).to(dtype)
        actions = torch.cat([hidden_states, action_mask], dim=-1).to(dtype)
        first = (
            self.time_embed(timestep),
            self.frequency_embed(conditions.control_frequency),
            self.state_adaptor(state),
        )
        tokens = torch.cat([torch.stack(first, dim=1), adapt_actions(actions)], dim=1)
        return self.transform(tokens, contexts)

    def transform(
        self, tokens: Float[Tensor, "b n d"], contexts: Sequence[Context]
    ) -> Float[Tensor, "b h a"]:
        """From embedded tokens to actions.

        Args:
            tokens: [time, control frequency, state, actions], without positions.
            contexts: One per block.
        """
        tokens = tokens + self.positions
        for block, context in zip(self.blocks, contexts, strict=True):
            inputs = (tokens, None, None, context.tokens, context.pattern)
            if self.gradient_checkpointing and self.training:
                tokens = self._gradient_checkpointing_func(block, *inputs)
            else:
                tokens = block(*inputs)
        return self.head(tokens[:, -self.config.horizon :])

    def contexts(self, conditions: Conditions) -> list[Context]:
        """Keys and values of each block's condition. They depend on no noise, so a sampler computes them once."""
        streams = self.alternate(self.embed_context(conditions))
        return [
            stream.projected(cast(CrossAttention, block.cross))
            for block, stream in zip(self.blocks, streams, strict=True)
        ]

    def alternate(self, streams: Sequence[Context]) -> list[Context]:
        """The streams in turns, one per block ("alternating condition injection")."""
        return list(islice(cycle(streams), self.config.depth))

    def embed_context(self, conditions: Conditions) -> list[Context]:
        """Tokens of the instruction and, with pictures, of the pictures.

        Raises:
            ValueError: If there are more language tokens than positions, or pictures that do not fit `image_layout`.
        """
        language = self.language_adaptor(conditions.language.to(self.positions.dtype))
        length, most = language.shape[1], self.config.max_language_tokens
        if length > most:
            raise ValueError(f"the instruction has {length} tokens, expected at most {most}")
        streams = [Context.of(language + self.language_positions[:, :length], conditions.language_mask)]
        if self.image_adaptor is not None:
            streams.append(Context.of(self._embed_images(conditions.images)))
        return streams

    def _embed_images(self, images: Tensor | None) -> Float[Tensor, "b n d"]:
        if images is None or self.image_adaptor is None:
            raise ValueError("this policy sees, so it needs pictures")
        images = images.to(self.positions.dtype)
        if self.config.image_encoder == "patches":
            pictures = self.image_adaptor(2.0 * images.flatten(0, 1) - 1.0)
            tokens = pictures.unflatten(0, images.shape[:2]).flatten(1, 2)
        else:
            tokens = self.image_adaptor(images)
        if tokens.shape[1] != self.image_tokens:
            layout = tuple(self.config.image_layout)
            raise ValueError(
                f"the pictures make {tokens.shape[1]} tokens, expected {self.image_tokens} = {layout}"
            )
        return tokens + self.image_positions
