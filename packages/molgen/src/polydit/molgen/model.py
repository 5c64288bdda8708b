"""ADiT's two networks (Joshi et al. 2025, "All-atom Diffusion Transformers"), composed of core parts.

The autoencoder maps each atom of a molecule or crystal to a small latent vector and back; the latent DiT generates
those vectors. Shapes: b structures, n atom slots, c latent channels, d width, u distinct conditions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from polydit.core.nn.block import BlockConfig, DiTBlock, FinalLayer, init_transformer
from polydit.core.nn.embeddings import LabelEmbedding, TimeEmbedding, token_positions
from polydit.core.nn.modulation import MODULATIONS, ModulationTable
from polydit.core.nn.patterns import Padding, Pattern
from polydit.core.objectives.flow import LinearPath
from polydit.molgen.batch import MAX_ELEMENTS, AtomBatch

NULL, NUM_KINDS, NUM_SPACEGROUPS = 0, 2, 230
_ATOMS_PER_UNIT = 4.0  # brings the counts of a formula to the size of other inputs


@dataclass(frozen=True, eq=False)
class Posterior:
    """The encoder's Gaussian over latents, per atom."""

    mean: Float[Tensor, "b n c"]
    logvar: Float[Tensor, "b n c"]

    def sample(self, noise: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """mean + σ · noise."""
        return torch.addcmul(self.mean, torch.exp(0.5 * self.logvar), noise)

    def kl(self) -> Float[Tensor, "b n"]:
        """KL divergence to N(0, 1), summed over channels."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar).sum(-1)


@dataclass(frozen=True, eq=False)
class DecodedAtoms:
    """What the decoder says of a batch; padding slots hold numbers without meaning."""

    type_logits: Float[Tensor, "b n 100"]
    positions_nm: Float[Tensor, "b n 3"]
    frac_coords: Float[Tensor, "b n 3"]
    lengths_scaled: Float[Tensor, "b 3"]  # Å over the cube root of the number of atoms
    angles: Float[Tensor, "b 3"]  # radians


class _Transformer(nn.Module):
    """Plain pre-norm transformer with weighted norms and a final norm: the body of encoder and decoder."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        block = BlockConfig(width=width, heads=heads, mlp_ratio=mlp_ratio, modulated=False, norm_eps=1e-5)
        self.blocks = nn.ModuleList(DiTBlock(block) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, x: Float[Tensor, "b n d"], pattern: Pattern) -> Float[Tensor, "b n d"]:
        x = x + token_positions(x.shape[1], x.shape[2], x.device)
        for block in self.blocks:
            x = block(x, pattern=pattern)
        return self.norm(x)


def _coordinate_mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width, bias=False), nn.SiLU(), nn.Linear(width, width))


class AtomEncoder(nn.Module):
    """Atoms to transformer features: type, position and fractional position are embedded and added."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.type_embed = nn.Embedding(MAX_ELEMENTS, width)
        self.position_mlp = _coordinate_mlp(width)
        self.frac_mlp = _coordinate_mlp(width)
        self.transformer = _Transformer(width, depth, heads, mlp_ratio)

    def forward(self, batch: AtomBatch, pattern: Pattern) -> Float[Tensor, "b n d"]:
        x = (
            self.type_embed(batch.numbers)
            + self.position_mlp(batch.positions)
            + self.frac_mlp(batch.frac_coords)
        )
        return self.transformer(x, pattern)


class AtomDecoder(nn.Module):
    """Features to types, positions, fractional positions, and a lattice from the mean over atoms."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.transformer = _Transformer(width, depth, heads, mlp_ratio)
        self.type_head = nn.Linear(width, MAX_ELEMENTS)
        self.position_head = nn.Linear(width, 3, bias=False)
        self.frac_head = nn.Linear(width, 3, bias=False)
        self.lattice_head = nn.Linear(width, 6, bias=False)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"], pattern: Pattern) -> DecodedAtoms:
        x = self.transformer(x, pattern)
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        lengths, angles = self.lattice_head(mean).chunk(2, dim=-1)
        return DecodedAtoms(self.type_head(x), self.position_head(x), self.frac_head(x), lengths, angles)


class AtomAutoencoder(ModelMixin, ConfigMixin):
    """Variational autoencoder of single atoms in context (ADiT, section 3.1).

    Args:
        width: Token width d.
        depth: Blocks of the encoder, and of the decoder.
        heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward over `width`.
        latent_channels: Latent numbers per atom c.
        latent_mean: Mean of each latent channel over the training data, one row per kind in the order of
            `KIND_LABELS`; None = 0, as published.
        latent_std: Standard deviation in the same form; None = 1, as published. `encode` and `decode` use raw latents;
            the diffusion works on (raw - mean) / std. Each kind has its own row: molecules fill a small part of the
            space that crystals need, and noise of one size for both would hide them.
    """

    _repeated_blocks = ["DiTBlock"]  # noqa: RUF012  diffusers reads class-level lists
    _no_split_modules = ["DiTBlock"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        width: int = 512,
        depth: int = 8,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        latent_channels: int = 8,
        latent_mean: list[list[float]] | None = None,
        latent_std: list[list[float]] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = AtomEncoder(width, depth, heads, mlp_ratio)
        self.to_moments = nn.Linear(width, 2 * latent_channels, bias=False)
        self.from_latent = nn.Linear(latent_channels, width, bias=False)
        self.decoder = AtomDecoder(width, depth, heads, mlp_ratio)
        init_transformer(self)
        nn.init.normal_(self.encoder.type_embed.weight, std=0.5)

    def encode(self, batch: AtomBatch) -> Posterior:
        """Atoms to a Gaussian over latents."""
        features = self.encoder(batch, Padding(batch.mask))
        mean, logvar = self.to_moments(features).chunk(2, dim=-1)
        return Posterior(mean, logvar.clamp(-30.0, 20.0))

    def decode(self, latents: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"]) -> DecodedAtoms:
        """Latents to atoms."""
        return self.decoder(self.from_latent(latents), mask, Padding(mask))

    def normalize(self, latents: Float[Tensor, "b n c"], kind: Int[Tensor, " b"]) -> Float[Tensor, "b n c"]:
        """Raw latents to the scale that the diffusion works on; `kind` is 1 crystal, 2 molecule."""
        mean, std = self._latent_scale(kind)
        return (latents - mean) / std

    def denormalize(self, latents: Float[Tensor, "b n c"], kind: Int[Tensor, " b"]) -> Float[Tensor, "b n c"]:
        """Undo `normalize`."""
        mean, std = self._latent_scale(kind)
        return latents * std + mean

    def _latent_scale(self, kind: Int[Tensor, " b"]) -> tuple[Float[Tensor, "b 1 c"], Float[Tensor, "b 1 c"]]:
        channels = self.config.latent_channels
        mean = self.config.latent_mean or [[0.0] * channels] * NUM_KINDS
        std = self.config.latent_std or [[1.0] * channels] * NUM_KINDS
        rows = (kind - 1).cpu()
        return (
            torch.tensor(mean)[rows, None].to(kind.device),
            torch.tensor(std)[rows, None].to(kind.device),
        )


class LatentDiT(ModelMixin, ConfigMixin, CacheMixin, PeftAdapterMixin):
    """Diffusion transformer over atom latents (ADiT, section 3.2). Predicts the clean latent x₁.

    Args:
        latent_channels: Latent numbers per atom c.
        width: Token width d.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward over `width`.
        modulation: "adaln" as published, or "adaln_single".
        preconditioned: The output is `LinearPath.precondition` of the last layer's, for latents of unit variance;
            published: False, the last layer's own output.
        formula: Whether the network can be told a structure's formula. Published: False.
    """

    _repeated_blocks = ["DiTBlock"]  # noqa: RUF012  diffusers reads class-level lists
    _no_split_modules = ["DiTBlock"]  # noqa: RUF012
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 8,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp_ratio: float = 4.0,
        modulation: str = "adaln",
        preconditioned: bool = False,
        formula: bool = False,
    ) -> None:
        super().__init__()
        block = BlockConfig(width=width, heads=heads, mlp_ratio=mlp_ratio)
        self.input = nn.Linear(2 * latent_channels, width)
        self.time_embed = TimeEmbedding(width)
        self.kind_embed = LabelEmbedding(NUM_KINDS + 1, width, null=NULL)
        self.spacegroup_embed = LabelEmbedding(NUM_SPACEGROUPS + 1, width, null=NULL)
        self.modulator = MODULATIONS[modulation](width, depth)
        self.composition_embed = nn.Linear(MAX_ELEMENTS, width, bias=False) if formula else None
        self.blocks = nn.ModuleList(DiTBlock(block) for _ in range(depth))
        self.final = FinalLayer(width, latent_channels)
        self.gradient_checkpointing = False
        init_transformer(self)

    def modulate(
        self, timestep: Float[Tensor, " u"], kind: Int[Tensor, " u"], spacegroup: Int[Tensor, " u"]
    ) -> ModulationTable:
        """The modulation of all blocks for each (time, kind, space group)."""
        condition = self.time_embed(timestep) + self.kind_embed(kind) + self.spacegroup_embed(spacegroup)
        return self.modulator(condition)

    def forward(
        self,
        hidden_states: Float[Tensor, "b n c"],
        timestep: Float[Tensor, " b"] | None = None,
        kind: Int[Tensor, " b"] | None = None,
        spacegroup: Int[Tensor, " b"] | None = None,
        mask: Bool[Tensor, "b n"] | None = None,
        self_condition: Float[Tensor, "b n c"] | None = None,
        modulation: ModulationTable | None = None,
        composition: Float[Tensor, "b 100"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Predict the clean latents, zero in padding.

        Args:
            hidden_states: Noisy latents x_t.
            timestep: t in [0, 1], 0 = noise, 1 = data; not multiplied by 1000.
            kind: 0 null, 1 crystal, 2 molecule.
            spacegroup: 0 null, 1..230.
            mask: True for atoms, contiguous from slot 0; None = no padding.
            self_condition: The previous prediction; None = zeros.
            modulation: From `modulate`, one row per item; then the labels are not needed, nor, unless the network is
                preconditioned, the time.
            composition: Atoms of each element, by atomic number; zeros or None = not told.

        Returns:
            x̂₁, in the dtype of the weights, or float32 if preconditioned.
        """
        if modulation is None:
            if timestep is None or kind is None or spacegroup is None:
                raise ValueError("LatentDiT needs timestep, kind and spacegroup, or modulation")
            modulation = self.modulate(timestep, kind, spacegroup)
        previous = torch.zeros_like(hidden_states) if self_condition is None else self_condition
        tokens = self.input(torch.cat([hidden_states, previous], dim=-1).to(self.dtype))
        tokens = tokens + token_positions(tokens.shape[1], tokens.shape[2], tokens.device).to(tokens.dtype)
        if self.composition_embed is not None and composition is not None:
            told = self.composition_embed((composition / _ATOMS_PER_UNIT).to(tokens.dtype))
            tokens = tokens + told[:, None]
        pattern = None if mask is None else Padding(mask)
        for index, block in enumerate(self.blocks):
            if self.gradient_checkpointing and self.training:
                tokens = self._gradient_checkpointing_func(
                    block, tokens, modulation.blocks[:, index], pattern
                )
            else:
                tokens = block(tokens, modulation.blocks[:, index], pattern)
        prediction = self.final(tokens, modulation.final)
        if self.config.preconditioned:
            if timestep is None:
                raise ValueError("a preconditioned LatentDiT needs timestep, also with modulation")
            prediction = LinearPath.precondition(hidden_states, prediction, timestep)
        return prediction if mask is None else prediction * mask[..., None]
