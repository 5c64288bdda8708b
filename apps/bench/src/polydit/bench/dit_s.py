"""DiT-S/2 three times with the same random weights: the plain transcription, diffusers' class, and ours.

The weights reach our side, and from there the transcription, through the converters that users get.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from diffusers import DiTTransformer2DModel
from torch import nn

from polydit.bench.plain_dit import PlainDiT
from polydit.core.models.convert import dit_from_diffusers, dit_to_published
from polydit.core.models.dit import DiT

WEIGHT_STD = 0.03  # large enough that gates, scales and attention all matter
CLASSES, CHANNELS, PATCH = 1000, 4, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of the networks; the default is DiT-S."""

    width: int = 384
    depth: int = 12
    heads: int = 6


@dataclass(frozen=True, slots=True, eq=False)
class DiTs:
    """The same network three times, in float32 and eval mode."""

    plain: PlainDiT
    diffusers: DiTTransformer2DModel
    ours: DiT


def dit_s(tokens_per_side: int, size: Size | None = None, *, seed: int = 0) -> DiTs:
    """All three for a square of patches.

    diffusers' class is given the published time frequencies and norms, from which its defaults deviate; otherwise it
    would compute another function, in the same time.
    """
    size = size or Size()
    theirs = DiTTransformer2DModel(
        num_attention_heads=size.heads,
        attention_head_dim=size.width // size.heads,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        num_layers=size.depth,
        sample_size=tokens_per_side * PATCH,
        patch_size=PATCH,
        num_embeds_ada_norm=CLASSES,
        norm_eps=1e-6,
    )
    generator = torch.Generator().manual_seed(seed)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=WEIGHT_STD, generator=generator)
    embedders = theirs.transformer_blocks[0].norm1.emb
    for block in theirs.transformer_blocks:  # each keeps a copy
        block.norm1.emb = copy.deepcopy(embedders)
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    ours = dit_from_diffusers(theirs.state_dict(), theirs.config, frequency_shift=0.0)
    plain = PlainDiT(
        input_size=tokens_per_side * PATCH,
        patch_size=PATCH,
        in_channels=CHANNELS,
        hidden_size=size.width,
        depth=size.depth,
        num_heads=size.heads,
        num_classes=CLASSES,
    )
    plain.load_state_dict(dit_to_published(ours))
    return DiTs(plain.eval(), theirs.eval(), ours.eval())
