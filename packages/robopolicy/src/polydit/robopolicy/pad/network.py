"""PAD's network (Guo et al. 2024, "Prediction with Action"): one DiT that denoises what comes and what to do about it.

Future frames, actions and, where there are any, future depth maps are noised by one clock and cleaned in one pass.
Frames are stacked on the channels of one token grid, the present frame, which is never noised, last among them. Actions
and depth maps are further tokens of the same sequence. The frames' tokens see only each other, so they learn from a
video without actions just as from a robot's episode. Each modality has its own head.

Shapes: b items, f future frames, c picture channels, y x picture size, h actions in a chunk, a numbers in an action,
s state numbers, e text width, d token width, n tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.cache_utils import CacheMixin
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from polydit.core.nn.block import BlockConfig, DiTBlock, FinalLayer, init_transformer
from polydit.core.nn.embeddings import TimeEmbedding, sincos_grid
from polydit.core.nn.modulation import AdaLNZero
from polydit.core.nn.patchify import PatchEmbed, unpatchify
from polydit.core.nn.patterns import Groups
from polydit.core.objectives.diffusion import Prediction

__all__ = ["NAMES", "Modalities", "PADTransformer"]

NAMES = ("images", "actions", "depth_maps")  # the kinds of tokens, in their order in the sequence


@dataclass(frozen=True, kw_only=True, eq=False)
class Modalities:
    """What the network denoises, or what is known at present; None = there is none.

    The axis after the items is time: future frames and actions of a chunk, or 1 for the present.

    Args:
        images: Pictures in [-1, 1], or latents of unit size.
        actions: Normalised actions; at present: the state.
        depth_maps: Distances, scaled to about unit size.
    """

    images: Float[Tensor, "b f c y x"] | None = None
    actions: Float[Tensor, "b h a"] | None = None
    depth_maps: Float[Tensor, "b f z w"] | None = None

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of those that are there."""
        return ((name, x) for name in NAMES if (x := getattr(self, name)) is not None)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor of a modality that is there."""
        return dict(self.items())[name]

    def map(self, function: Callable[[str, Tensor], Tensor]) -> Modalities:
        """A function of name and tensor, applied to each that is there."""
        return Modalities(**{name: function(name, x) for name, x in self.items()})


class PADTransformer(ModelMixin, ConfigMixin, CacheMixin, PeftAdapterMixin):
    """DiT over future frames, actions and depth maps.

    The defaults are DiT-XL/2 over the latents of 256 px pictures, as published for MetaWorld: 3 future frames and one
    token that holds the chunk's actions and the state.

    Args:
        sample_size: Height and width of the picture or latent.
        patch_size: Patch size of the pictures.
        in_channels: Picture channels c.
        future_frames: Future frames f.
        horizon: Actions in a chunk h; 0 = a network of frames alone.
        action_dim: Numbers in an action a.
        state_dim: Numbers of the state that each action token sees; 0 = none.
        action_tokens: 1 packs the chunk into one token, `horizon` gives each action its own.
        text_dim: Width of the instruction's embedding e. CLIP ViT-B/32: 512.
        depth_map_size: Height and width of depth maps; 0 = none.
        depth_map_patch: Their patch size, a multiple of `patch_size`.
        width: Token width d.
        depth: Number of blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward over `width`.
        frames_see_all: Whether the frames' tokens attend to actions and depth maps. Published default: False.
        learned_positions: Whether the action tokens' positions are learned. Published default: False, sin-cos.
        prediction: What the network returns: "epsilon" (published), "sample" or "v"; see `JointDiffusion`.
        frame_skip: Steps from frame to frame; the first future frame is this far ahead. Published: 4 on MetaWorld.
        joint: Whether future frames are denoised with the actions; False = their slots are always zero.

    Raises:
        ValueError: If sizes do not fit one another.
    """

    _repeated_blocks = ["DiTBlock"]  # noqa: RUF012  diffusers reads class-level lists
    _no_split_modules = ["DiTBlock"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["patch_embed", "positions", "norm"]  # noqa: RUF012
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        patch_size: int = 2,
        in_channels: int = 4,
        future_frames: int = 3,
        horizon: int = 3,
        action_dim: int = 4,
        state_dim: int = 4,
        action_tokens: int = 1,
        text_dim: int = 512,
        depth_map_size: int = 0,
        depth_map_patch: int = 8,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        frames_see_all: bool = False,
        learned_positions: bool = False,
        prediction: Prediction = "epsilon",
        frame_skip: int = 4,
        joint: bool = True,
    ) -> None:
        super().__init__()
        if sample_size % patch_size:
            raise ValueError(f"patches of {patch_size} do not divide pictures of {sample_size}")
        self.grid = (sample_size // patch_size,) * 2
        block = BlockConfig(width=width, heads=heads, mlp_ratio=mlp_ratio)

        self.patch_embed = PatchEmbed(in_channels * (future_frames + 1), (patch_size, patch_size), width)
        self.register_buffer("positions", sincos_grid(self.grid, width), persistent=False)
        self.time_embed = TimeEmbedding(width)
        self.text_embed = nn.Linear(text_dim, width)
        self.modulator = AdaLNZero(width, depth)
        self.blocks = nn.ModuleList(DiTBlock(block) for _ in range(depth))
        self.final = FinalLayer(width, 2 * future_frames * in_channels * patch_size**2)
        self.actions = _Actions(self.config) if horizon else None
        self.depth_maps = _DepthMaps(self.config, self.grid) if depth_map_size else None
        self.gradient_checkpointing = False
        init_transformer(self)
        nn.init.normal_(self.text_embed.weight, std=0.02)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities that this network denoises."""
        there = {"images": True, "actions": self.actions, "depth_maps": self.depth_maps}
        return tuple(name for name in NAMES if there[name])

    def forward(
        self,
        noisy: Modalities,
        now: Modalities,
        timestep: Float[Tensor, " b"] | Int[Tensor, " b"],
        text: Float[Tensor, "b e"],
        present: Mapping[str, Bool[Tensor, " b"]] | None = None,
    ) -> tuple[Modalities, Modalities]:
        """Predict what the objective asks for (published: the noise), and the variance of a step back.

        Args:
            noisy: Noisy x_t of each modality. One that is None is left out of this call: no other modality depends on
                it, but for missing frames, whose slots are zero and whose tokens, which hold the present, stay.
            now: Present frame (b 1 c y x), state (b 1 s) and depth map (b 1 z w), never noised.
            timestep: 0..999, one clock for all modalities.
            text: Embedding of the instruction.
            present: False for items that lack a modality, by its name: the others do not see its tokens, its frames
                count as zeros, and its own prediction means nothing. Not given = True.

        Returns:
            The prediction, and v in about [-1, 1] as `GaussianDiffusion.posterior` takes it; both for the modalities
            in `noisy`, in its shapes.
        """
        present = present or {}
        noisy, now = (parts.map(lambda _, x: x.to(self.dtype)) for parts in (noisy, now))
        condition = self.time_embed(timestep) + self.text_embed(text.to(self.dtype))
        modulation = self.modulator(condition)
        tokens, counts = self._embed(noisy, now, present.get("images"))
        pattern = self._pattern(counts, present, tokens.device)
        for index, block in enumerate(self.blocks):
            arguments = (tokens, modulation.blocks[:, index], pattern)
            if self.gradient_checkpointing and self.training:
                tokens = self._gradient_checkpointing_func(block, *arguments)
            else:
                tokens = block(*arguments)
        read = dict(zip(counts, tokens.split(list(counts.values()), dim=1), strict=True))
        out: dict[str, tuple[Tensor, Tensor]] = {}
        if noisy.images is not None:
            patch = (self.config.patch_size,) * 2
            grid = unpatchify(self.final(read["images"], modulation.final), self.grid, patch)
            # the first half of the channels is the prediction of all frames, the second their variance
            out["images"] = grid.unflatten(1, (2, *noisy.images.shape[1:3])).unbind(1)
        for name, stream in self._streams(noisy):
            out[name] = stream.read(read[name], condition, noisy[name].shape)
        value, variance = ({name: pair[i] for name, pair in out.items()} for i in (0, 1))
        return Modalities(**value), Modalities(**variance)

    def _streams(self, noisy: Modalities) -> Iterator[tuple[str, _Stream]]:
        """The streams beside the frames that this network has and this call asks for."""
        streams = {"actions": self.actions, "depth_maps": self.depth_maps}
        there = dict(noisy.items())
        return ((name, s) for name, s in streams.items() if s is not None and name in there)

    def _embed(
        self, noisy: Modalities, now: Modalities, frames_present: Bool[Tensor, " b"] | None
    ) -> tuple[Float[Tensor, "b n d"], dict[str, int]]:
        """Tokens of all modalities in one sequence, and how many each has."""
        current = now["images"]
        shape = (len(current), self.config.future_frames, *current.shape[2:])
        frames = current.new_zeros(shape) if noisy.images is None else noisy.images
        if frames_present is not None:
            frames = frames * frames_present[:, None, None, None, None]
        stacked = torch.cat([frames, current], dim=1).flatten(1, 2)
        parts = {"images": self.patch_embed(stacked) + self.positions}
        known = dict(now.items())
        for name, stream in self._streams(noisy):
            parts[name] = stream.embed(noisy[name], known.get(name))
        return torch.cat(list(parts.values()), dim=1), {name: x.shape[1] for name, x in parts.items()}

    def _pattern(
        self, counts: Mapping[str, int], present: Mapping[str, Bool[Tensor, " b"]], device: torch.device
    ) -> Groups | None:
        """Frames see frames; actions and depth maps see what is there. None = everyone sees everyone."""
        hidden = {name: seen for name, seen in present.items() if name in counts and name != "images"}
        if len(counts) == 1 or (self.config.frames_see_all and not hidden):
            return None
        names = list(counts)
        rows = len(next(iter(hidden.values()))) if hidden else 1
        sees = torch.ones(rows, len(names), len(names), dtype=torch.bool, device=device)
        if not self.config.frames_see_all:
            sees[:, 0, 1:] = False
        for name, seen in hidden.items():
            sees[:, :, names.index(name)] &= seen[:, None]
        sees.diagonal(dim1=1, dim2=2).fill_(True)
        kinds = [kind for kind, count in enumerate(counts.values()) for _ in range(count)]
        return Groups(torch.tensor(kinds, device=device), sees)


class _Stream(nn.Module):
    """Tokens of one modality beside the frames: their embedding, and a head with a modulation of its own."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.final = FinalLayer(width, channels)

    def reset_parameters(self) -> None:
        """Zeros, as the modulation of the blocks."""
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def embed(self, noisy: Tensor, now: Tensor | None) -> Float[Tensor, "b n d"]:
        """Noisy values and what is known at present, as tokens."""
        raise NotImplementedError

    def read(
        self, tokens: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"], shape: torch.Size
    ) -> tuple[Tensor, Tensor]:
        """Tokens to prediction and variance in the shape of the noisy values."""
        raise NotImplementedError

    def _head(self, tokens: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"]) -> Tensor:
        shift, scale = self.modulation(F.silu(condition)).unflatten(-1, (2, -1)).unbind(1)
        return self.final(tokens, torch.stack([shift, 1.0 + scale], dim=1))


class _Actions(_Stream):
    """A chunk of actions as one token or as a token each, with the state in every one."""

    positions: Tensor

    def __init__(self, config: Mapping[str, Any]) -> None:
        width, count = config["width"], config["action_tokens"]
        if count < 1 or config["horizon"] % count:
            raise ValueError(f"{config['horizon']} actions do not fill {count} tokens evenly")
        packed = config["horizon"] * config["action_dim"] // count
        super().__init__(width, 2 * packed)
        self.count, self.state_dim = count, config["state_dim"]
        self.linear = nn.Linear(packed + self.state_dim, width)
        table = sincos_grid((count,), width)
        if config["learned_positions"]:
            self.positions = nn.Parameter(table)
        else:
            self.register_buffer("positions", table, persistent=False)

    def embed(self, noisy: Tensor, now: Tensor | None) -> Float[Tensor, "b n d"]:
        values = noisy.reshape(len(noisy), self.count, -1)
        if self.state_dim:
            if now is None:
                raise ValueError("this network needs the state beside the actions")
            values = torch.cat([values, now.expand(-1, self.count, -1)], dim=-1)
        return self.linear(values) + self.positions

    def read(
        self, tokens: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"], shape: torch.Size
    ) -> tuple[Tensor, Tensor]:
        value, variance = self._head(tokens, condition).chunk(2, dim=-1)
        return value.reshape(shape), variance.reshape(shape)


class _DepthMaps(_Stream):
    """Depth maps of the present and of the future frames, stacked on the channels of a coarser grid."""

    positions: Tensor

    def __init__(self, config: Mapping[str, Any], image_grid: tuple[int, int]) -> None:
        width, patch, frames = config["width"], config["depth_map_patch"], config["future_frames"]
        cells, ratio = config["depth_map_size"] // patch, patch // config["patch_size"]
        # published: a token takes the position of the picture's patch at its upper left corner
        table = sincos_grid(image_grid, width).unflatten(0, image_grid)[::ratio, ::ratio].flatten(0, 1)
        if len(table) != cells**2:
            raise ValueError(f"depth maps of {cells} x {cells} patches do not fit the pictures' {image_grid}")
        super().__init__(width, 2 * frames * patch**2)
        self.grid, self.patch = (cells, cells), (patch, patch)
        self.patch_embed = PatchEmbed(frames + 1, self.patch, width)
        self.register_buffer("positions", table, persistent=False)

    def embed(self, noisy: Tensor, now: Tensor | None) -> Float[Tensor, "b n d"]:
        if now is None:
            raise ValueError("this network needs the present depth map beside the future ones")
        return self.patch_embed(torch.cat([noisy, now], dim=1)) + self.positions

    def read(
        self, tokens: Float[Tensor, "b n d"], condition: Float[Tensor, "b d"], shape: torch.Size
    ) -> tuple[Tensor, Tensor]:
        value, variance = unpatchify(self._head(tokens, condition), self.grid, self.patch).chunk(2, dim=1)
        return value, variance
