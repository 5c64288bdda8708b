"""ADiT written plainly from its formulas: the baseline that the bench measures against.

Nothing here is shared with `polydit.core`: `nn.MultiheadAttention`, adaLN in every block on every call, dense
padding, fp32. The modules carry the published state-dict names, so that one set of weights runs on both sides of
a measurement.

Source: Joshi et al., "All-atom Diffusion Transformers" (arXiv 2503.03965): latent DiT and flow matching.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

TIME_FEATURES = 256  # width of the sinusoidal time features


def position_embedding(index: Int[Tensor, "*rows"], width: int) -> Float[Tensor, "*rows d"]:
    """Embed a token's place in its structure as [sin | cos] of index·π / 2048^(2k/width), k < width / 2."""
    k = torch.arange(width // 2, dtype=torch.float32)
    angle = index.float().unsqueeze(-1) * math.pi / 2048 ** (2 * k / width)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def time_features(time: Float[Tensor, " b"]) -> Float[Tensor, "b f"]:
    """Embed time in [0, 1] as [cos | sin] of t·10000^(-k/128), k < 128."""
    half = TIME_FEATURES // 2
    angle = time[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def modulate(
    x: Float[Tensor, "b n d"], shift: Float[Tensor, "b d"], scale: Float[Tensor, "b d"]
) -> Float[Tensor, "b n d"]:
    """Shift and scale the features of all tokens of a structure alike."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class TimeEmbedder(nn.Module):
    """Sinusoidal features of time through a two-layer network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Embed the time of each structure."""
        return self.mlp(time_features(time))


class LabelEmbedder(nn.Module):
    """A table of labels whose row 0 is the null label of guidance."""

    def __init__(self, num_labels: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_labels + 1, width)

    def forward(self, label: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Look each label up."""
        return self.embedding_table(label)


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
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = FeedForward(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(
        self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"], padding: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b n d"]:
        """Apply attention and feed-forward; `padding` is True where there is no token."""
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=-1)
        y = modulate(self.norm1(x), shift1, scale1)
        x = x + gate1.unsqueeze(1) * self.attn(y, y, y, key_padding_mask=padding, need_weights=False)[0]
        y = modulate(self.norm2(x), shift2, scale2)
        return x + gate2.unsqueeze(1) * self.mlp(y)


class FinalLayer(nn.Module):
    """Modulated norm and a linear map to the latent channels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"]) -> Float[Tensor, "b n c"]:
        """Read the prediction off the tokens."""
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class PlainDiT(nn.Module):
    """ADiT's denoiser: predicts the clean latents x₁ from the noisy ones.

    Args:
        d_x: Latent channels of an atom.
        d_model: Width.
        num_layers: Number of blocks.
        nhead: Attention heads.
        mlp_ratio: Hidden width of the feed-forward over the width.
        num_datasets: Kinds of structures; label 0 is null, 1 crystal, 2 molecule.
        num_spacegroups: Space groups; label 0 is null.
    """

    def __init__(
        self,
        d_x: int = 8,
        d_model: int = 384,
        num_layers: int = 12,
        nhead: int = 6,
        mlp_ratio: float = 4.0,
        num_datasets: int = 2,
        num_spacegroups: int = 230,
    ) -> None:
        super().__init__()
        self.d_x, self.d_model, self.nhead = d_x, d_model, nhead
        self.x_embedder = nn.Linear(2 * d_x, d_model)
        self.t_embedder = TimeEmbedder(d_model)
        self.dataset_embedder = LabelEmbedder(num_datasets, d_model)
        self.spacegroup_embedder = LabelEmbedder(num_spacegroups, d_model)
        self.blocks = nn.ModuleList(Block(d_model, nhead, mlp_ratio) for _ in range(num_layers))
        self.final_layer = FinalLayer(d_model, d_x)

    def forward(
        self,
        x: Float[Tensor, "b n c"],
        time: Float[Tensor, " b"],
        dataset: Int[Tensor, " b"],
        spacegroup: Int[Tensor, " b"],
        mask: Bool[Tensor, "b n"],
        self_condition: Float[Tensor, "b n c"] | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Predict the clean latents.

        Args:
            x: Noisy latents.
            time: Time in [0, 1]; 1 is data.
            dataset: Label of the kind of structure.
            spacegroup: Label of the space group.
            mask: True where a token is real.
            self_condition: The previous prediction; None stands for zeros.
        """
        if self_condition is None:
            self_condition = torch.zeros_like(x)
        h = self.x_embedder(torch.cat([x, self_condition], dim=-1))
        h = h + position_embedding(mask.cumsum(dim=1) - 1, self.d_model)
        condition = (
            self.t_embedder(time) + self.dataset_embedder(dataset) + self.spacegroup_embedder(spacegroup)
        )
        for block in self.blocks:
            h = block(h, condition, ~mask)
        return self.final_layer(h, condition) * mask.unsqueeze(-1)

    def guided(
        self,
        x: Float[Tensor, "b n c"],
        time: Float[Tensor, " b"],
        dataset: Int[Tensor, " b"],
        spacegroup: Int[Tensor, " b"],
        mask: Bool[Tensor, "b n"],
        self_condition: Float[Tensor, "b n c"] | None,
        guidance_scale: float,
    ) -> Float[Tensor, "b n c"]:
        """Predict with classifier-free guidance: one doubled batch, null labels in its second half."""
        x, time, mask = torch.cat([x, x]), torch.cat([time, time]), torch.cat([mask, mask])
        dataset = torch.cat([dataset, torch.zeros_like(dataset)])
        spacegroup = torch.cat([spacegroup, torch.zeros_like(spacegroup)])
        if self_condition is not None:
            self_condition = torch.cat([self_condition, self_condition])
        conditional, null = self(x, time, dataset, spacegroup, mask, self_condition).chunk(2)
        return null + guidance_scale * (conditional - null)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Every state and every prediction of one sampling run; the last prediction is the sample."""

    states: list[Float[Tensor, "b n c"]]
    predictions: list[Float[Tensor, "b n c"]]


@torch.no_grad()
def sample_latents(
    model: PlainDiT,
    noise: Float[Tensor, "b n c"],
    dataset: Int[Tensor, " b"],
    spacegroup: Int[Tensor, " b"],
    mask: Bool[Tensor, "b n"],
    *,
    num_steps: int = 100,
    guidance_scale: float | None = 2.0,
    min_time: float = 0.01,
) -> Trajectory:
    """Integrate the flow from noise to latents with Euler steps and self-conditioning.

    Args:
        model: Denoiser that predicts the clean latents.
        noise: The state at `min_time`.
        dataset: Label of the kind of structure.
        spacegroup: Label of the space group.
        mask: True where a token is real.
        num_steps: Model calls in all; the last one stands at time 1 and gives the sample.
        guidance_scale: Strength of classifier-free guidance; None runs the conditional model alone.
        min_time: Time of the first call.
    """

    def predict(x: Tensor, time: Tensor, self_condition: Tensor | None) -> Tensor:
        times = time.expand(len(x))
        if guidance_scale is None:
            return model(x, times, dataset, spacegroup, mask, self_condition)
        return model.guided(x, times, dataset, spacegroup, mask, self_condition, guidance_scale)

    grid = torch.linspace(min_time, 1.0, num_steps)
    states: list[Tensor] = [noise]
    predictions: list[Tensor] = []
    for now, after in pairwise(grid):
        clean = predict(states[-1], now, predictions[-1] if predictions else None)
        states.append(states[-1] + (after - now) * (clean - states[-1]) / (1 - now))
        predictions.append(clean)
    predictions.append(predict(states[-1], grid[-1], predictions[-1] if predictions else None))
    return Trajectory(states, predictions)


def interpolate(
    clean: Float[Tensor, "b n c"],
    noise: Float[Tensor, "b n c"],
    time: Float[Tensor, " b"],
    mask: Bool[Tensor, "b n"],
) -> Float[Tensor, "b n c"]:
    """Mix centred noise and clean latents: x_t = ((1 − t)·x₀ + t·x₁)·mask.

    The mean of the noise is taken over all slots of a structure, padding included, as published.
    """
    t = time[:, None, None]
    return ((1 - t) * (noise - noise.mean(dim=1, keepdim=True)) + t * clean) * mask.unsqueeze(-1)


def flow_loss(
    prediction: Float[Tensor, "b n c"],
    clean: Float[Tensor, "b n c"],
    time: Float[Tensor, " b"],
    mask: Bool[Tensor, "b n"],
) -> Float[Tensor, " b"]:
    """Mean squared error of the prediction over 1 − min(t, 0.9), per structure, over its real tokens."""
    error = (clean - prediction) / (1 - time.clamp(max=0.9))[:, None, None] * mask.unsqueeze(-1)
    return error.square().sum(dim=(1, 2)) / (mask.sum(dim=1) * clean.shape[-1])
