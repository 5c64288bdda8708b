"""DiT written plainly from its formulas: the baseline that the bench measures against.

Nothing here is shared with `polydit.core`: adaLN in every block on every call, fp32, one forward after the other. The
modules carry the published state-dict names, so that one set of weights runs on all sides of a measurement. Attention
is torch's fused one, as in the published code.

Source: Peebles & Xie, "Scalable Diffusion Models with Transformers" (arXiv 2212.09748), section 3 and figure 3. SiT (Ma
et al., arXiv 2401.08740) is the same network without the learned variance.
"""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

TIME_FEATURES = 256  # width of the sinusoidal time features
GUIDED_CHANNELS = 3  # the published code guides three of the four latent channels


def time_features(time: Float[Tensor, " b"] | Int[Tensor, " b"]) -> Float[Tensor, "b f"]:
    """Embed time as [cos | sin] of t·10000^(-k/128), k < 128."""
    half = TIME_FEATURES // 2
    angle = time[:, None].float() * torch.exp(-math.log(10000) * torch.arange(half) / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def grid_positions(side: int, width: int) -> Float[Tensor, "n d"]:
    """Embed the cells of a square: half the channels for the column, half for the row, each [sin | cos] of p·ω.

    ω_k = 10000^(-k / (width / 4)), k < width / 4.
    """
    omega = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    cell = torch.arange(side * side)
    halves = [place.double()[:, None] * omega for place in (cell % side, cell // side)]
    return torch.cat([part for angle in halves for part in (angle.sin(), angle.cos())], dim=1).float()


def modulate(
    x: Float[Tensor, "b n d"], shift: Float[Tensor, "b d"], scale: Float[Tensor, "b d"]
) -> Float[Tensor, "b n d"]:
    """Shift and scale the features of all tokens of an item alike."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class PatchEmbedder(nn.Module):
    """A linear map of each patch, as a convolution."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Cut into patches, row by row."""
        return self.proj(x).flatten(2).transpose(1, 2)


class TimeEmbedder(nn.Module):
    """Sinusoidal features of time through a two-layer network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Float[Tensor, " b"] | Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Embed the time of each item."""
        return self.mlp(time_features(time))


class LabelEmbedder(nn.Module):
    """A table of labels whose last row is the null label of guidance."""

    def __init__(self, num_labels: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_labels + 1, width)

    def forward(self, label: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Look each label up."""
        return self.embedding_table(label)


class Attention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Mix the tokens of each item."""
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


class FeedForward(nn.Module):
    """Two linear layers around a tanh-GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Transform each token by itself."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """A Transformer block under adaLN-Zero: the condition gives six vectors on every call."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = FeedForward(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b n d"]:
        """Apply attention and feed-forward."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=-1)
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


class FinalLayer(nn.Module):
    """Modulated norm and a linear map to the values of a patch."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, values)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b n p"]:
        """Read the prediction off the tokens."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class PlainDiT(nn.Module):
    """DiT: predicts the noise, and how to interpolate its variance. The defaults are DiT-S/2 for 256² pixels.

    Args:
        input_size: Height and width of the latent.
        patch_size: Height and width of a patch.
        in_channels: Latent channels.
        hidden_size: Width.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward over the width.
        num_classes: Labels; label `num_classes` is null.
        return_sigma: DiT: True. SiT: False, it drops the second half of its channels.
    """

    def __init__(
        self,
        input_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 384,
        depth: int = 12,
        num_heads: int = 6,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        return_sigma: bool = True,
    ) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_classes=num_classes, num_heads=num_heads)
        self.side, self.patch, self.return_sigma = input_size // patch_size, patch_size, return_sigma
        self.x_embedder = PatchEmbedder(in_channels, patch_size, hidden_size)
        self.register_buffer("pos_embed", grid_positions(self.side, hidden_size)[None])
        self.t_embedder = TimeEmbedder(hidden_size)
        self.y_embedder = LabelEmbedder(num_classes, hidden_size)
        self.blocks = nn.ModuleList(Block(hidden_size, num_heads, mlp_ratio) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size**2 * 2 * in_channels)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"] | Int[Tensor, " b"],
        label: Int[Tensor, " b"],
    ) -> Float[Tensor, "b o h w"]:
        """Predict.

        Args:
            x: Noisy latents.
            time: DiT: 0..999. SiT: 0 (noise) .. 1 (data).
            label: Class, or null.
        """
        h = self.x_embedder(x) + self.pos_embed
        condition = self.t_embedder(time) + self.y_embedder(label)
        for block in self.blocks:
            h = block(h, condition)
        out = self._unpatchify(self.final_layer(h, condition))
        return out if self.return_sigma else out.chunk(2, dim=1)[0]

    def guided(
        self,
        x: Float[Tensor, "b c h w"],
        time: Float[Tensor, " b"] | Int[Tensor, " b"],
        label: Int[Tensor, " b"],
        scale: float,
    ) -> Float[Tensor, "b c h w"]:
        """Predict with classifier-free guidance: one doubled batch, null labels in its second half; no variance."""
        null = torch.full_like(label, self.config.num_classes)
        out = self(torch.cat([x, x]), torch.cat([time, time]), torch.cat([label, null]))
        conditional, unconditional = out[:, : x.shape[1]].chunk(2)
        guided = unconditional + scale * (conditional - unconditional)
        return torch.cat([guided[:, :GUIDED_CHANNELS], conditional[:, GUIDED_CHANNELS:]], dim=1)

    def _unpatchify(self, x: Float[Tensor, "b n p"]) -> Float[Tensor, "b o h w"]:
        values = x.reshape(len(x), self.side, self.side, self.patch, self.patch, -1)
        return values.permute(0, 5, 1, 3, 2, 4).reshape(
            len(x), -1, self.side * self.patch, self.side * self.patch
        )


@torch.no_grad()
def sample_flow(
    model: PlainDiT,
    noise: Float[Tensor, "b c h w"],
    label: Int[Tensor, " b"],
    *,
    num_steps: int,
    guidance_scale: float,
) -> Float[Tensor, "b c h w"]:
    """Integrate the guided velocity with Euler steps of equal length from level 1 (noise) to 0.

    Args:
        model: Predicts noise - data at times 1000 · level.
        noise: The state at level 1.
        label: Class of each item.
        num_steps: Steps, each of one call of the doubled batch.
        guidance_scale: Strength of classifier-free guidance.
    """
    x = noise
    for now, after in pairwise(torch.linspace(1, 0, num_steps + 1)):
        x = x + (after - now) * model.guided(x, (1000 * now).expand(len(x)), label, guidance_scale)
    return x
