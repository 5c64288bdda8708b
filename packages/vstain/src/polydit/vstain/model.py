"""The network of StainDiffuser, built from the core: one encoder of the H&E, two denoisers that attend to it.

    H&E ─patches→ encoder ─┬─ cross-attention → denoiser of the stain → clean image
                           └─ cross-attention → denoiser of the mask  → clean analog bits

The two denoisers run on one clock and meet in the encoder alone (Kataria et al. 2024, arXiv 2403.11340, abstract; no
code is published, so sizes and details are ours). All attention is local: each token sees a disk of its neighbours,
with rotary positions. So what is made of a place depends on its surroundings, not on the tile that it was cut in.

Shapes: b tiles, h x w pixels, n tokens of patches, d width, u distinct conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from jaxtyping import Float, Int
from torch import Tensor, nn

from polydit.core.nn.attention import CrossAttention, KeysValues
from polydit.core.nn.block import BlockConfig, DiTBlock, FinalLayer, init_transformer
from polydit.core.nn.disk import Disk
from polydit.core.nn.embeddings import LabelEmbedding, TimeEmbedding
from polydit.core.nn.modulation import AdaLNSingle, ModulationTable
from polydit.core.nn.patchify import PatchEmbed, unpatchify
from polydit.core.nn.patterns import Pattern
from polydit.core.nn.rotary import Rotary
from polydit.vstain.noise import IMAGE_CHANNELS, MASK_CHANNELS

_THETA = 100.0  # of rotary positions: a disk is a few tokens wide


@dataclass(frozen=True, eq=False)
class Tissue:
    """An H&E tile as the denoisers see it.

    Args:
        image: Keys and values of the stain's denoiser, block by block.
        mask: Those of the mask's denoiser; empty = it is not wanted.
        pattern: Who attends to whom on the grid of patches.
        grid: Tokens per axis.
    """

    image: Sequence[KeysValues]
    mask: Sequence[KeysValues]
    pattern: Rotary
    grid: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Denoised:
    """What the network takes for the clean tile.

    Args:
        image: The stain, normalised.
        mask: Analog bits: above 0 is a positive cell; None = not computed.
    """

    image: Float[Tensor, "b 3 h w"]
    mask: Float[Tensor, "b 1 h w"] | None


class HEEncoder(nn.Module):
    """Plain blocks over the patches of an H&E tile; nothing in it depends on time or stain.

    Args:
        block: Of all its blocks.
        depth: How many.
        patch_size: Pixels per axis of a patch.
    """

    def __init__(self, block: BlockConfig, depth: int, patch_size: int) -> None:
        super().__init__()
        self.embed = PatchEmbed(3, (patch_size,) * 2, block.width)
        self.blocks = nn.ModuleList(DiTBlock(block) for _ in range(depth))
        self.norm = nn.LayerNorm(block.width, eps=block.norm_eps)
        self.null = nn.Parameter(torch.zeros(block.width))

    def forward(self, he: Float[Tensor, "b 3 h w"], pattern: Pattern) -> Float[Tensor, "b n d"]:
        tokens = self.embed(he)
        for block in self.blocks:
            tokens = block(tokens, pattern=pattern)
        return self.norm(tokens)


class Denoiser(nn.Module):
    """Blocks over the patches of a noisy picture, modulated by time and stain, each attending to the H&E.

    Args:
        channels: Of the picture.
        block: Of all its blocks.
        depth: How many.
        patch_size: Pixels per axis of a patch.
        num_stains: Rows of the table of stains.
    """

    def __init__(
        self, channels: int, block: BlockConfig, depth: int, patch_size: int, num_stains: int
    ) -> None:
        super().__init__()
        width, self.patch = block.width, (patch_size,) * 2
        self.embed = PatchEmbed(channels, self.patch, width)
        self.time = TimeEmbedding(width)
        self.stain = LabelEmbedding(num_stains, width, null=0)
        self.modulation = AdaLNSingle(width, depth)
        self.blocks = nn.ModuleList(DiTBlock(block) for _ in range(depth))
        self.final = FinalLayer(width, channels * patch_size**2)

    def modulate(
        self, timestep: Float[Tensor, " u"] | Int[Tensor, " u"], stain: Int[Tensor, " u"]
    ) -> ModulationTable:
        """The modulation of all blocks for each (time, stain)."""
        return self.modulation(self.time(timestep) + self.stain(stain))

    def attended(self, tissue: Float[Tensor, "b n d"], pattern: Rotary) -> list[KeysValues]:
        """What each block reads of the encoded H&E, its keys turned: the same at every step."""
        known = [cast(CrossAttention, block.cross).keys_values(tissue) for block in self.blocks]
        return [KeysValues(pattern.turned(one.keys), one.values) for one in known]

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        modulation: ModulationTable,
        tissue: Sequence[KeysValues],
        pattern: Rotary,
        grid: tuple[int, int],
    ) -> Float[Tensor, "b c h w"]:
        tokens, crossing = self.embed(x), replace(pattern, keys_turned=True)
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, modulation.blocks[:, index], pattern, tissue[index], crossing)
        return unpatchify(self.final(tokens, modulation.final), grid, self.patch)


class StainDiT(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """StainDiffuser's network. It predicts the clean stain and mask; `velocity` of the objective turns that into v.

    Args:
        patch_size: Pixels per axis of a patch.
        width: Token width.
        heads: Attention heads; a head's width is a multiple of 4.
        encoder_depth: Blocks over the H&E.
        image_depth: Blocks that denoise the stain.
        mask_depth: Blocks that denoise the mask; 0 = there is no mask.
        mlp_ratio: Hidden width of the feed-forward over `width`.
        radius: Of attention, in tokens: a token sees those nearer than that.
        num_stains: Stains that it makes.
    """

    _repeated_blocks = ["DiTBlock"]  # noqa: RUF012  diffusers reads class-level lists
    _no_split_modules = ["DiTBlock"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        patch_size: int = 8,
        width: int = 192,
        heads: int = 6,
        encoder_depth: int = 4,
        image_depth: int = 4,
        mask_depth: int = 2,
        mlp_ratio: float = 4.0,
        radius: int = 3,
        num_stains: int = 2,
    ) -> None:
        super().__init__()
        plain = BlockConfig(width=width, heads=heads, mlp_ratio=mlp_ratio, modulated=False)
        crossing = BlockConfig(width=width, heads=heads, mlp_ratio=mlp_ratio, cross_attention=True)
        self.encoder = HEEncoder(plain, encoder_depth, patch_size)
        self.image = Denoiser(IMAGE_CHANNELS, crossing, image_depth, patch_size, num_stains)
        self.mask = (
            Denoiser(MASK_CHANNELS, crossing, mask_depth, patch_size, num_stains) if mask_depth else None
        )
        init_transformer(self)

    def encode(
        self,
        he: Float[Tensor, "b 3 h w"],
        dropped: Float[Tensor, " b"] | None = None,
        *,
        mask: bool = True,
    ) -> Tissue:
        """Everything of the H&E that the denoisers need, once for all steps and stains.

        Args:
            he: In [-1, 1]; sides are multiples of the patch.
            dropped: 1 for tiles whose H&E is hidden, for guidance; 0 or None = seen.
            mask: Whether the mask will be denoised as well.
        """
        grid = (he.shape[2] // self.config.patch_size, he.shape[3] // self.config.patch_size)
        pattern = Rotary.of(
            Disk(grid, self.config.radius),
            grid,
            self.config.width // self.config.heads,
            theta=_THETA,
            device=he.device,
        )
        tokens = self.encoder(he.to(self.dtype), pattern)
        if dropped is not None:
            tokens = torch.lerp(tokens, self.encoder.null.to(tokens.dtype), dropped.to(tokens)[:, None, None])
        wanted = self.mask if mask else None
        return Tissue(
            self.image.attended(tokens, pattern),
            () if wanted is None else wanted.attended(tokens, pattern),
            pattern,
            grid,
        )

    def forward(
        self,
        he: Float[Tensor, "b 3 h w"],
        image: Float[Tensor, "b 3 h w"],
        mask: Float[Tensor, "b 1 h w"] | None,
        timestep: Float[Tensor, " b"] | Int[Tensor, " b"],
        stain: Int[Tensor, " b"],
        dropped: Float[Tensor, " b"] | None = None,
    ) -> Denoised:
        """One step from H&E and noisy pictures; a sampler calls `encode` once and `denoise` at every step.

        Args:
            he: In [-1, 1].
            image: Noisy stain, normalised.
            mask: Noisy analog bits; None = the mask is not wanted.
            timestep: 0..999.
            stain: 0..num_stains - 1.
            dropped: As of `encode`.
        """
        tissue = self.encode(he, dropped, mask=mask is not None)
        tables = self.modulate(timestep, stain, mask=mask is not None)
        return self.denoise(image, mask, tables, tissue)

    def modulate(
        self,
        timestep: Float[Tensor, " u"] | Int[Tensor, " u"],
        stain: Int[Tensor, " u"],
        *,
        mask: bool = True,
    ) -> tuple[ModulationTable, ModulationTable | None]:
        """The modulation of both denoisers for each (time, stain)."""
        wanted = self.mask if mask else None
        bits = None if wanted is None else wanted.modulate(timestep, stain)
        return self.image.modulate(timestep, stain), bits

    def denoise(
        self,
        image: Float[Tensor, "b 3 h w"],
        mask: Float[Tensor, "b 1 h w"] | None,
        tables: tuple[ModulationTable, ModulationTable | None],
        tissue: Tissue,
    ) -> Denoised:
        """The clean pictures, in float32; arguments as of `forward`, from `modulate` and `encode`."""
        clean = self.image(image.to(self.dtype), tables[0], tissue.image, tissue.pattern, tissue.grid)
        if mask is None or self.mask is None or tables[1] is None:
            return Denoised(clean.float(), None)
        bits = self.mask(mask.to(self.dtype), tables[1], tissue.mask, tissue.pattern, tissue.grid)
        return Denoised(clean.float(), bits.float())
