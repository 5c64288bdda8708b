"""What the policies' networks eat, and what each of them can do. Shapes: b items, h horizon, a action dimensions.

s state dimensions, l language tokens, e language width, k pictures, f future pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from polydit.core.sampling.cache import Cache, CacheReport


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyBatch:
    """Observations, and in training what follows them. States and actions are normalised already.

    Args:
        state: The newest state.
        language: Precomputed embedding of the instruction.
        language_mask: True for its tokens.
        images: Pictures in [0, 1], in the order of the policy's cameras; None for a state policy.
        control_frequency: Hz; 0 = unknown.
        actions: The actions that follow; None when sampling.
        action_is_pad: True where the episode was over; None when sampling.
        future_images: Pictures that follow, for a policy that predicts them too.
    """

    state: Float[Tensor, "b s"]
    language: Float[Tensor, "b l e"]
    language_mask: Bool[Tensor, "b l"]
    control_frequency: Float[Tensor, " b"]
    images: Float[Tensor, "b k 3 y x"] | None = None
    actions: Float[Tensor, "b h a"] | None = None
    action_is_pad: Bool[Tensor, "b h"] | None = None
    future_images: Float[Tensor, "b f 3 y x"] | None = None

    def __len__(self) -> int:
        """Number of items."""
        return len(self.state)

    def to(self, device: torch.device | str) -> PolicyBatch:
        """The same batch on another device."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            moved[field.name] = value if value is None else value.to(device)
        return PolicyBatch(**moved)


@runtime_checkable
class ActionModel(Protocol):
    """A system that generates chunks of actions."""

    @property
    def horizon(self) -> int:
        """Actions in a chunk h."""
        ...

    @property
    def action_dim(self) -> int:
        """Numbers in an action a."""
        ...

    @property
    def num_steps(self) -> int:
        """Default number of network calls per chunk."""
        ...

    @property
    def solver(self) -> str:
        """Name of its sampler; "ddpm" draws new noise in every step."""
        ...

    def loss(self, batch: PolicyBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars of a batch: "loss" is minimised, all are logged. Random draws come from `generator` (CPU)."""
        ...

    def sample(
        self,
        batch: PolicyBatch,
        noise: Float[Tensor, "b h a"],
        num_steps: int | None = None,
        *,
        cache: str | Cache | None = None,
        on_cache: Callable[[CacheReport], object] | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Normalised actions from standard normal noise.

        Args:
            batch: Observations.
            noise: Standard normal noise.
            num_steps: Network calls; None = the default.
            cache: Which of them are forecast, such as "newton"; its run is this call. None = none.
            on_cache: Told what the cache did.
        """
        ...
