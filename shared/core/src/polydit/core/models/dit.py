"""The class-conditional DiT of facebookresearch/DiT, and SiT, which is the same network on another clock.

Shapes: b batch, c channels, d width, u distinct conditions.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from jaxtyping import Float, Int
from torch import Tensor, nn

from polydit.core.nn.block import BlockConfig, DiTBlock, FinalLayer, init_transformer
from polydit.core.nn.embeddings import LabelEmbedding, TimeEmbedding, sincos_grid
from polydit.core.nn.modulation import MODULATIONS, ModulationTable
from polydit.core.nn.patchify import PatchEmbed, unpatchify
from polydit.core.nn.patterns import Window


class DiT(ModelMixin, ConfigMixin, CacheMixin, PeftAdapterMixin):
    """Diffusion transformer with adaLN-Zero (Peebles & Xie 2023; SiT: Ma et al. 2024).

    Unlike diffusers' `DiTTransformer2DModel`, it computes what the published code computes: time frequencies are
    divided by half the channels, norms have epsilon 1e-6, and the condition is embedded once, not once per block.

    Args:
        sample_size: Height and width of the (square) latent, or one size per axis for 1-3 dimensions.
        patch_size: Patch size of every axis.
        in_channels: Latent channels.
        width: Token width d.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward over `width`.
        num_classes: Classes, without the null class, which is label `num_classes`.
        learn_sigma: The network has twice the channels; the second half is DiT's learned variance.
        return_sigma: Whether `forward` returns that second half. DiT: True. SiT: False.
        modulation: "adaln" as published, or "adaln_single".
        out_channels: Channels of the prediction; None = `in_channels`.
        feed_forward: A kind of `BlockConfig.feed_forward`. Published in 2D: "gelu_tanh"; DiT-3D: "gelu".
        window: Tokens per axis of the windows that attention stays in; 0 = none.
        window_blocks: Blocks that have windows; the others see everything (ViTDet: Li et al. 2022).
        slowest_first: Order of the axes in the channels of the positions; see `sincos_grid`. DiT-3D: True.
        frequency_shift: 0 as published; 1 for weights trained in diffusers' own class.

    Raises:
        ValueError: The patch does not divide the grid, or the window not the grid of patches.
    """

    _repeated_blocks = ["DiTBlock"]  # noqa: RUF012  diffusers reads class-level lists
    _no_split_modules = ["DiTBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["patch_embed", "positions", "norm"]  # noqa: RUF012
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        sample_size: int | Sequence[int] = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        learn_sigma: bool = True,
        return_sigma: bool = True,
        modulation: str = "adaln",
        frequency_shift: float = 0.0,
        out_channels: int | None = None,
        feed_forward: str = "gelu_tanh",
        window: int = 0,
        window_blocks: Sequence[int] = (),
        slowest_first: bool = False,
    ) -> None:
        super().__init__()
        cells = (sample_size, sample_size) if isinstance(sample_size, int) else tuple(sample_size)
        self.patch = (patch_size,) * len(cells)
        if any(cell % patch_size for cell in cells):
            raise ValueError(f"the patch {patch_size} does not divide the grid {cells}")
        self.grid = tuple(cell // patch_size for cell in cells)
        self.out_channels = (out_channels or in_channels) * (2 if learn_sigma else 1)
        block = BlockConfig(width=width, heads=heads, mlp_ratio=mlp_ratio, feed_forward=feed_forward)
        windows = Window(self.grid, (window,) * len(cells)) if window else None
        self.patterns = [windows if index in window_blocks else None for index in range(depth)]

        self.patch_embed = PatchEmbed(in_channels, self.patch, width)
        positions = sincos_grid(self.grid, width, slowest_first=slowest_first)
        self.register_buffer("positions", positions, persistent=False)
        self.time_embed = TimeEmbedding(width, frequency_shift=frequency_shift)
        self.label_embed = LabelEmbedding(num_classes + 1, width, null=num_classes)
        self.modulator = MODULATIONS[modulation](width, depth)
        self.blocks = nn.ModuleList(DiTBlock(block) for _ in range(depth))
        self.final = FinalLayer(width, self.out_channels * patch_size ** len(cells))
        self.gradient_checkpointing = False
        init_transformer(self)

    def modulate(
        self, timestep: Float[Tensor, " u"] | Int[Tensor, " u"], class_labels: Int[Tensor, " u"]
    ) -> ModulationTable:
        """The modulation of all blocks for each (time, label): give it to `forward` to skip computing it there.

        A sampling run makes that of all its steps at once: `sampling.modulation.ModulationSchedule`.
        """
        return self.modulator(self.time_embed(timestep) + self.label_embed(class_labels))

    def forward(
        self,
        hidden_states: Float[Tensor, "b c *cells"],
        timestep: Float[Tensor, " b"] | Int[Tensor, " b"] | None = None,
        class_labels: Int[Tensor, " b"] | None = None,
        modulation: ModulationTable | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[Float[Tensor, "b o *cells"]]:
        """Predict noise (DiT) or velocity (SiT).

        Args:
            hidden_states: Noisy latents.
            timestep: DiT: 0..999. SiT: 0 (noise) .. 1 (data).
            class_labels: 0..num_classes; num_classes is the null class.
            modulation: From `modulate`, one row per item; then time and labels are not needed.
            return_dict: False returns a tuple of one tensor.
        """
        if modulation is None:
            if timestep is None or class_labels is None:
                raise ValueError("DiT needs timestep and class_labels, or modulation")
            modulation = self.modulate(timestep, class_labels)
        tokens = self.patch_embed(hidden_states) + self.positions
        for block, own, pattern in zip(self.blocks, modulation.blocks.unbind(1), self.patterns, strict=True):
            if self.gradient_checkpointing and self.training:
                tokens = self._gradient_checkpointing_func(block, tokens, own, pattern)
            else:
                tokens = block(tokens, own, pattern)
        sample = unpatchify(self.final(tokens, modulation.final), self.grid, self.patch)
        if self.config.learn_sigma and not self.config.return_sigma:
            sample = sample.chunk(2, dim=1)[0]
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)
