"""MoDE's network: a causal transformer whose feed-forwards are experts for different noise levels.

The sequence is [noise level, goal, observations, actions]. The router of each block sees the noise level alone, so all
tokens of an item use the same experts, and which ones they are is known before sampling starts: see `cache`.

Shapes: b items, h horizon, a action dimensions, o observation tokens of width s, g goal width, k pictures,
n tokens in all, d token width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from diffusers import ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from jaxtyping import Float
from torch import Tensor, nn

from polydit.core.nn.attention import SelfAttention
from polydit.core.nn.experts import Experts, RoutedFeedForward, Router, Routing
from polydit.core.nn.feed_forward import FeedForward, SwiGLU
from polydit.core.nn.patterns import Causal, Pattern
from polydit.robopolicy.mode.encoders import ENCODERS

__all__ = ["MoDE", "MoDEOutput", "StepPlan"]

# Published: x / max(rms(x), 1e-6). Inside the root that is 1e-12.
_NORM_EPS = 1e-12


@runtime_checkable
class Feed(Protocol):
    """A feed-forward that is known already, without routing."""

    def __call__(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Mix the channels of each token."""
        ...


@dataclass(frozen=True, eq=False)
class StepPlan:
    """All that a network does because of the noise level of one sampling step, made before. See `cache`.

    Args:
        token: The embedded noise level.
        feeds: The feed-forward of each block.
    """

    token: Float[Tensor, "1 d"]
    feeds: Sequence[Feed]


class MoDEOutput(NamedTuple):
    """What the network says.

    Attributes:
        sample: The prediction F of EDM's preconditioning.
        routings: How each block routed; none in a dense network, or with a plan.
    """

    sample: Float[Tensor, "b h a"]
    routings: tuple[Routing, ...]


class NoiseBlock(nn.Module):
    """Attention that is told the noise level c, and experts that are chosen by it::

        x ← x + attn(norm₁(x) + c)
        x ← norm₂(x)
        x ← x + experts(x; c)

    The experts' residual starts from the normalised tokens: so the published code has it, and its weights expect it.

    Args:
        width: Token width d.
        heads: Attention heads.
        mlp: A `RoutedFeedForward`, or a plain feed-forward.
    """

    def __init__(self, width: int, heads: int, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(width, eps=_NORM_EPS)
        self.attn = SelfAttention(width, heads, qk_norm="rms", eps=_NORM_EPS)
        self.attn.out = nn.Linear(width, width, bias=False)
        self.norm2 = nn.RMSNorm(width, eps=_NORM_EPS)
        self.mlp = mlp

    def forward(
        self,
        tokens: Float[Tensor, "b n d"],
        noise: Float[Tensor, "b d"],
        pattern: Pattern,
        feed: Feed | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Routing | None]:
        """The tokens, and how they were routed, if they were."""
        tokens = tokens + self.attn(self.norm1(tokens) + noise[:, None], pattern)
        tokens = self.norm2(tokens)
        if feed is not None or not isinstance(self.mlp, RoutedFeedForward):
            return tokens + (feed or self.mlp)(tokens), None
        mixed, routing = self.mlp(tokens, noise, generator)
        return tokens + mixed, routing


class MoDE(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """MoDE's transformer with its encoders of observations. The defaults are the published ones but for the encoder.

    Published training also drops attention weights (0.3) and units of the experts (0.1); we do not.

    Args:
        horizon: Actions in a chunk h.
        action_dim: Numbers in an action a.
        observation_dim: Width of an observation token s; 0 = what the encoder makes, or without one the state.
        goal_dim: Width of the instruction's embedding g. CLIP ViT-B/32: 512.
        state_dim: Numbers of the state, which is one observation token; 0 = the state is not seen, as published.
        cameras: Pictures that are seen, each by an encoder of its own, as one observation token.
        encoder: A key of `ENCODERS`. Published: "film_resnet50".
        width: Token width d.
        depth: Number of blocks.
        heads: Attention heads.
        num_experts: Experts in each block.
        top_k: Experts that a noise level uses.
        normalize: Whether the weights of the chosen experts are scaled to the sum 1.
        hidden_ratio: Hidden width of one expert over `width`.
        dense: One SwiGLU of the size of all experts together in the place of router and experts, to compare with.

    Raises:
        ValueError: If nothing is observed, or sizes do not fit one another.
    """

    _repeated_blocks = ["NoiseBlock"]  # noqa: RUF012  diffusers reads class-level lists
    _no_split_modules = ["NoiseBlock"]  # noqa: RUF012
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        horizon: int = 10,
        action_dim: int = 7,
        observation_dim: int = 0,
        goal_dim: int = 512,
        state_dim: int = 0,
        cameras: int = 2,
        encoder: str = "small",
        width: int = 1024,
        depth: int = 12,
        heads: int = 8,
        num_experts: int = 4,
        top_k: int = 2,
        normalize: bool = True,
        hidden_ratio: int = 4,
        dense: bool = False,
    ) -> None:
        super().__init__()
        observation_dim = observation_dim or (ENCODERS[encoder].width if cameras else state_dim)
        if not observation_dim:
            raise ValueError("a network that sees neither a state nor pictures has no observation")
        if not 1 <= top_k <= num_experts:
            raise ValueError(f"{top_k} of {num_experts} experts cannot be chosen")
        self.noise_embed = nn.Sequential(nn.Linear(1, width), nn.Linear(width, width, bias=False))
        self.goal_embed = nn.Linear(goal_dim, width, bias=False)
        self.observation_embed = nn.Linear(observation_dim, width, bias=False)
        self.action_embed = nn.Linear(action_dim, width, bias=False)
        self.positions = nn.Parameter(torch.empty(1 + horizon, width))
        self.encoders = nn.ModuleList(ENCODERS[encoder](observation_dim, goal_dim) for _ in range(cameras))
        projects = state_dim and state_dim != observation_dim
        self.state_project = nn.Linear(state_dim, observation_dim) if projects else None
        self.blocks = nn.ModuleList(NoiseBlock(width, heads, self._feed_forward()) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=_NORM_EPS)
        self.out = nn.Linear(width, action_dim)
        self.gradient_checkpointing = False
        self.mode_changes = 0
        self._init_weights()

    def _feed_forward(self) -> nn.Module:
        width, count = self.config.width, self.config.num_experts
        hidden = self.config.hidden_ratio * width
        if self.config.dense:
            return SwiGLU(width, count * hidden)
        net = FeedForward(width, 2 * width, "gelu", out=count)
        router = Router(net, self.config.top_k, normalize=self.config.normalize)
        return RoutedFeedForward(router, Experts(width, hidden, count, bias=True))

    def _init_weights(self) -> None:
        """torch's own start values, as published, but for small positions, and routers that begin nearly even."""
        nn.init.normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, Router):
                for name, value in module.net.named_parameters():
                    nn.init.zeros_(value) if name.endswith("bias") else nn.init.normal_(value, std=0.02)

    def train(self, mode: bool = True) -> MoDE:
        """As torch's; counts the changes, for whoever keeps something made from the weights."""
        self.mode_changes = getattr(self, "mode_changes", 0) + 1
        return super().train(mode)

    @property
    def active_parameters(self) -> int:
        """Parameters that one noise level uses: all but those of the experts that were not chosen."""
        sizes = [sum(p.numel() for p in m.parameters()) for m in self.modules() if isinstance(m, Experts)]
        idle = 1.0 - self.config.top_k / self.config.num_experts
        return self.num_parameters() - round(idle * sum(sizes))

    # -----------------------------------------------------------------------------------------------------
    # What does not depend on the noise

    def observe(
        self,
        state: Float[Tensor, "b state"],
        images: Float[Tensor, "b k 3 y x"] | None,
        goal: Float[Tensor, "b g"],
    ) -> Float[Tensor, "b o s"]:
        """The observation tokens: the state, if the network sees it, then a token per camera.

        Args:
            state: Normalised state.
            images: Pictures in [0, 1], as many as the network has cameras.
            goal: Embedded instruction.

        Raises:
            ValueError: If the number of pictures is not that of the cameras.
        """
        given = 0 if images is None else images.shape[1]
        if given != len(self.encoders):
            raise ValueError(f"{given} pictures for {len(self.encoders)} cameras")
        tokens: list[Tensor] = []
        dtype = self.positions.dtype  # diffusers' `self.dtype` walks through all modules
        state, goal = state.to(dtype), goal.to(dtype)
        if self.config.state_dim:
            tokens.append(state if self.state_project is None else self.state_project(state))
        if images is not None:
            views = zip(self.encoders, images.to(dtype).unbind(1), strict=True)
            tokens += [encoder(pictures, goal) for encoder, pictures in views]
        return torch.stack(tokens, dim=1)

    def context(
        self, observations: Float[Tensor, "b o s"], goal: Float[Tensor, "b g"]
    ) -> Float[Tensor, "b c d"]:
        """The tokens of goal and observations. A sampler makes them once, for all its steps.

        All observations take one position, and so does the first action: they are of the same moment.
        """
        seen = self.observation_embed(observations) + self.positions[1]
        return torch.cat(
            [(self.goal_embed(goal.to(self.positions.dtype)) + self.positions[0])[:, None], seen], dim=1
        )

    # -----------------------------------------------------------------------------------------------------

    def forward(
        self,
        hidden_states: Float[Tensor, "b h a"],
        timestep: Float[Tensor, " b"],
        context: Float[Tensor, "b c d"],
        plan: StepPlan | None = None,
        generator: torch.Generator | None = None,
    ) -> MoDEOutput:
        """Predict EDM's F.

        Args:
            hidden_states: c_in · x.
            timestep: c_noise = ln(σ) / 4.
            context: From `context`.
            plan: What the noise level decides, made before; then `timestep` is not looked at.
            generator: Draws the experts by their probabilities, as in training; None takes the most probable.
        """
        items, count = len(hidden_states), len(self.blocks)
        level = self.noise_embed(timestep[:, None].to(self.positions.dtype)) if plan is None else plan.token
        noise = level.expand(items, -1)
        actions = self.action_embed(hidden_states.to(self.positions.dtype)) + self.positions[1:]
        tokens = torch.cat([noise[:, None], context, actions], dim=1)
        pattern = Causal.of(tokens.shape[1], tokens.device)
        routings: list[Routing] = []
        feeds = [None] * count if plan is None else plan.feeds
        for block, feed in zip(self.blocks, feeds, strict=True):
            arguments = (tokens, noise, pattern, feed, generator)
            if self.gradient_checkpointing and self.training:
                tokens, routing = self._gradient_checkpointing_func(block, *arguments)
            else:
                tokens, routing = block(*arguments)
            routings += [routing] if routing is not None else []
        return MoDEOutput(self.out(self.norm(tokens[:, -self.config.horizon :])), tuple(routings))
