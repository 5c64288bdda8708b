"""MoDE's expert cache: which experts a noise level uses is known before sampling starts.

Routing depends on the noise level alone, and a sampler visits the same few levels for every chunk. So each block routes
once per sampling step, the chosen experts become one feed-forward, and the chunks that follow route nothing. Plans are
kept by the index of the sampling step; the published code looks them up by the mean of an embedding, a float that other
batches need not hit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.nn.experts import FusedExperts, RoutedFeedForward
from polydit.robopolicy.mode.network import Feed, MoDE, StepPlan

__all__ = ["ExpertCache"]


@dataclass(eq=False)
class ExpertCache:
    """The plans of a network, made when they are first asked for, and made anew after its weights have changed.

    A change is noticed when torch counts it (an optimizer's step, `copy_`, `load_state_dict`, `to`), or when the
    network went through `train()` or `eval()`. Whoever writes through `.data` calls `clear`.

    Args:
        network: A network with experts, not a dense one.
    """

    network: MoDE
    _plans: dict[int, list[StepPlan]] = field(default_factory=dict)
    _fused: dict[tuple[int, tuple[int, ...]], FusedExperts] = field(default_factory=dict)
    _made_from: tuple[object, ...] = ()

    def clear(self) -> None:
        """Forget everything."""
        self._plans.clear()
        self._fused.clear()

    @property
    def nbytes(self) -> int:
        """Memory of the fused weights. Steps that choose the same experts in a block share them."""
        return sum(fused.nbytes for fused in self._fused.values())

    @torch.no_grad()
    def plans(self, timesteps: Float[Tensor, " steps"], tokens: int) -> list[StepPlan]:
        """One plan per sampling step.

        Args:
            timesteps: c_noise of the steps; always the same for the same number of steps.
            tokens: Tokens that a call of the network has, about: it decides the layout of the fused weights.
        """
        state = self._weights()
        if state != self._made_from:
            self.clear()
            self._made_from = state
        if len(timesteps) not in self._plans:
            self._plans[len(timesteps)] = self._make(timesteps, tokens)
        return self._plans[len(timesteps)]

    def _make(self, timesteps: Float[Tensor, " steps"], tokens: int) -> list[StepPlan]:
        network = self.network
        levels = network.noise_embed(timesteps[:, None].to(network.positions.dtype))
        feeds = [self._feeds(index, levels, tokens) for index in range(len(network.blocks))]
        return [StepPlan(level[None], of_step) for level, *of_step in zip(levels, *feeds, strict=True)]

    def _feeds(self, index: int, levels: Float[Tensor, "steps d"], tokens: int) -> list[Feed]:
        """What block `index` does in each step."""
        mlp = self.network.blocks[index].mlp
        assert isinstance(mlp, RoutedFeedForward)
        routing = mlp.router(levels)
        made: list[Feed] = []
        for chosen, weights in zip(routing.indices, routing.weights, strict=True):
            order = chosen.argsort()  # the same experts in another order are the same feed-forward
            key = (index, tuple(chosen[order].tolist()))
            if key not in self._fused:
                self._fused[key] = mlp.experts.fuse(key[1], tokens)
            made.append(partial(self._fused[key], weights=weights[order]))
        return made

    def _weights(self) -> tuple[object, ...]:
        """Changes when the weights do."""
        seen = ((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.network.parameters())
        return (self.network.mode_changes, *seen)
