"""MoDE as the rest of the package sees it: what it learns, and how it plans a chunk of actions.

Shapes: b items, h horizon, a action dimensions, g goal width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.nn.experts import Routing, balance_loss
from polydit.core.objectives.edm import EDM
from polydit.core.objectives.times import LogLogisticNoise
from polydit.core.sampling import denoise
from polydit.core.sampling.cache import Cache, CacheReport, Clock, cached
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.mode.cache import ExpertCache
from polydit.robopolicy.mode.network import MoDE

__all__ = ["MoDEPolicy", "published_objective"]

LOW, HIGH = 0.001, 80.0  # noise levels, in training and in sampling


def published_objective() -> EDM:
    """EDM for data of deviation 0.5, trained at truncated log-logistic noise levels."""
    return EDM(sigma_data=0.5, noise=LogLogisticNoise(low=LOW, high=HIGH))


@dataclass(eq=False)
class MoDEPolicy:
    """MoDE's training loss and its sampler: an `ActionModel`.

    Args:
        network: The network.
        num_steps: Default number of network calls per chunk. Published: 10, and 5 in CALVIN's evaluation.
        balance_weight: Weight of the loss that spreads items over experts. Published: 0.01, and 0 in fine-tuning.
        goal_dropout: Share of the goal's numbers that are set to zero in training, each by itself, as published.
        cached: Whether `sample` plans the experts once for all chunks; outputs are the same to rounding.
        objective: What the network learns.
    """

    network: MoDE
    num_steps: int = 10
    balance_weight: float = 0.01
    goal_dropout: float = 0.1
    cached: bool = True
    objective: EDM = field(default_factory=published_objective)

    def __post_init__(self) -> None:
        self.cache = ExpertCache(self.network)

    @property
    def horizon(self) -> int:
        """Actions in a chunk h."""
        return int(self.network.config.horizon)

    @property
    def action_dim(self) -> int:
        """Numbers in an action a."""
        return int(self.network.config.action_dim)

    @property
    def solver(self) -> str:
        """DDIM."""
        return "ddim"

    def loss(self, batch: PolicyBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Scalars of a batch.

        "denoising" is EDM's error over the actions before the end of the episode; "balance", of a network with experts,
        is k when they are used evenly.

        Raises:
            ValueError: If the batch has no actions.
        """
        if batch.actions is None:
            raise ValueError("training needs the actions of the batch")
        noise = torch.randn(batch.actions.shape, generator=generator).to(batch.actions)
        sample = self.objective.noisy(batch.actions, noise, generator)
        out = self.network(
            self.objective.scaled(sample.x_t, sample.t),
            self.objective.condition(sample.t),
            self._context(batch, generator),
            generator=generator,
        )
        mask = None if batch.action_is_pad is None else ~batch.action_is_pad
        error = self.objective.loss(out.sample, sample, mask).mean()
        if not out.routings:
            return {"loss": error, "denoising": error}
        balance = torch.stack([_imbalance(routing) for routing in out.routings]).mean()
        return {"loss": error + self.balance_weight * balance, "denoising": error, "balance": balance}

    @torch.no_grad()
    def sample(
        self,
        batch: PolicyBatch,
        noise: Float[Tensor, "b h a"],
        num_steps: int | None = None,
        *,
        cache: str | Cache | None = None,
        on_cache: Callable[[CacheReport], object] | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Normalised actions, by DDIM from σ = 80 to 0.001 and 0, evenly in ln σ.

        Args:
            batch: Observations.
            noise: Standard normal noise.
            num_steps: Calls of the network, at least 2; None = the default.
            cache: See `ActionModel`. Where experts are chosen in every call, it cannot forecast whole blocks.
            on_cache: Told what it did.

        Raises:
            InputError: If `num_steps` is below 2, or the cache cannot serve the network.
        """
        steps = self.num_steps if num_steps is None else num_steps
        if steps < 2:
            raise InputError(f"{steps} sampling steps", where="num_steps", expected="2 or more")
        scheduler = self.objective.scheduler(low=LOW, high=HIGH, spacing="exponential")
        scheduler.set_timesteps(steps, device=noise.device)
        context = self._context(batch)
        plans = None
        if self.cached and not self.network.config.dense and not self.network.training:
            plans = self.cache.plans(scheduler.timesteps, len(batch) * (1 + context.shape[1] + self.horizon))
        step = count()

        def predict(
            x: Float[Tensor, "b h a"], timestep: Float[Tensor, ""], previous: Float[Tensor, "b h a"] | None
        ) -> Float[Tensor, "b h a"]:
            plan = None if plans is None else plans[next(step)]
            return self.network(x, timestep.expand(len(x)), context, plan).sample

        clock = Clock.diffusion([1.0 / (1.0 + level**2) for level in scheduler.sigmas[:-1].tolist()])
        with cached(self.network, cache, clock, on_report=on_cache):
            return denoise(predict, noise * HIGH, scheduler)

    def _context(self, batch: PolicyBatch, generator: torch.Generator | None = None) -> Tensor:
        """Goal and observations as tokens; with a generator, numbers of the goal are dropped, as in training."""
        goal = pooled(batch)
        observations = self.network.observe(batch.state, batch.images, goal)
        if generator is not None and self.goal_dropout > 0.0:
            kept = torch.rand(goal.shape, generator=generator) >= self.goal_dropout
            goal = goal * kept.to(goal)
        return self.network.context(observations, goal)


def pooled(batch: PolicyBatch) -> Float[Tensor, "b g"]:
    """One vector per instruction: its embedding, or the mean of its tokens'."""
    kept = batch.language_mask.to(batch.language)[..., None]
    return (batch.language * kept).sum(1) / kept.sum(1).clamp_min(1.0)


def _imbalance(routing: Routing) -> Float[Tensor, ""]:
    """The published form: of the weights in use, and with experts counted per item, which makes it k-fold."""
    return routing.indices.shape[1] * balance_loss(routing.spread(), routing.indices)
