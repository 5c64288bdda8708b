"""ADiT's autoencoder written plainly; its decoder is the last stage of the baseline's whole job.

Source: Joshi et al., "All-atom Diffusion Transformers" (arXiv 2503.03965), the autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from polydit.bench.plain_adit import position_embedding

NUM_TYPES = 100  # rows of the type table: 0 = hidden, 1..99 = atomic numbers


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the decoder's heads say, padded as the latents are."""

    atom_types: Float[Tensor, "b n 100"]  # logits over atomic numbers
    positions: Float[Tensor, "b n 3"]  # nm
    frac_coords: Float[Tensor, "b n 3"]
    lengths: Float[Tensor, "b 3"]  # Å over the cube root of the number of atoms
    angles: Float[Tensor, "b 3"]  # radians


class _Transformer(nn.Module):
    """Pre-norm encoder of torch with a final norm, under the published names."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        # A partial instead of nn.GELU: torch's fast path would put the erf-GELU in the tanh-GELU's place.
        gelu = partial(functional.gelu, approximate="tanh")
        layer = nn.TransformerEncoderLayer(
            width, heads, hidden, dropout=0.0, activation=gelu, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False).layers
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        """Add the places of the tokens and mix them; `mask` is True where a token is real."""
        x = x + position_embedding(mask.cumsum(dim=1) - 1, x.shape[-1])
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~mask)
        return self.norm(x)


class _Encoder(nn.Module):
    """Type, position and fractional position, each embedded and added."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.atom_type_embedder = nn.Embedding(NUM_TYPES, width)
        self.pos_embedder = _coordinate_embedder(width)
        self.frac_coords_embedder = _coordinate_embedder(width)
        self.transformer = _Transformer(width, heads, hidden, layers)


def _coordinate_embedder(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width, bias=False), nn.SiLU(), nn.Linear(width, width))


class _Decoder(nn.Module):
    """The decoder's Transformer and its four heads."""

    def __init__(self, width: int, heads: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.transformer = _Transformer(width, heads, hidden, layers)
        self.atom_types_head = nn.Linear(width, NUM_TYPES)
        self.pos_head = nn.Linear(width, 3, bias=False)
        self.frac_coords_head = nn.Linear(width, 3, bias=False)
        self.lattice_head = nn.Linear(width, 6, bias=False)


class PlainAutoencoder(nn.Module):
    """The published autoencoder, padded to a rectangle instead of concatenated.

    Args:
        latent_dim: Latent channels of an atom.
        d_model: Width.
        nhead: Attention heads.
        dim_feedforward: Hidden width of the feed-forward.
        num_layers: Layers of the encoder, and of the decoder.
    """

    def __init__(
        self,
        latent_dim: int = 8,
        d_model: int = 512,
        nhead: int = 8,
        dim_feedforward: int = 2048,
        num_layers: int = 8,
    ) -> None:
        super().__init__()
        self.encoder = _Encoder(d_model, nhead, dim_feedforward, num_layers)
        self.quant_conv = nn.Linear(d_model, 2 * latent_dim, bias=False)
        self.post_quant_conv = nn.Linear(latent_dim, d_model, bias=False)
        self.decoder = _Decoder(d_model, nhead, dim_feedforward, num_layers)

    def encode(
        self,
        atom_types: Int[Tensor, "b n"],
        positions: Float[Tensor, "b n 3"],
        frac_coords: Float[Tensor, "b n 3"],
        mask: Bool[Tensor, "b n"],
    ) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n c"]]:
        """Mean and standard deviation of each atom's latents; positions in Å, fractions zero for molecules."""
        part = self.encoder
        h = part.atom_type_embedder(atom_types) + part.pos_embedder(positions)
        h = part.transformer(h + part.frac_coords_embedder(frac_coords), mask)
        mean, logvar = self.quant_conv(h).chunk(2, dim=-1)
        return mean, (logvar.clamp(-30, 20) / 2).exp()

    def decode(self, latents: Float[Tensor, "b n c"], mask: Bool[Tensor, "b n"]) -> Decoded:
        """Decode latents; the lattice is read off the mean over each structure's real atoms."""
        part = self.decoder
        h = part.transformer(self.post_quant_conv(latents), mask)
        real = mask.unsqueeze(-1)
        lattice = part.lattice_head((h * real).sum(dim=1) / real.sum(dim=1))
        return Decoded(
            atom_types=part.atom_types_head(h),
            positions=part.pos_head(h),
            frac_coords=part.frac_coords_head(h),
            lengths=lattice[:, :3],
            angles=lattice[:, 3:],
        )
