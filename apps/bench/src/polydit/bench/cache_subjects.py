"""What caches are compared on: a trained toy DiT under guidance, and a tiny FLUX of diffusers with random weights.

A subject is sampled by the same loop, from the same noise, whoever caches its network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, SchedulerMixin
from jaxtyping import Float
from torch import Tensor, nn

from polydit.bench.toy_dit import CHANNELS, CLASSES, PIXELS, Toy, toy_dit
from polydit.core.models.dit import DiT
from polydit.core.sampling import denoise, guided_model
from polydit.core.sampling.cache import Clock
from polydit.core.sampling.loop import Predict
from polydit.core.sampling.modulation import ModulationSchedule
from polydit.core.sampling.solvers import FlowSolver, solver

GUIDANCE = 2.0
_TEXT, _SIDE, _LATENTS, _EMBEDDING = 16, 8, 16, 32  # of the tiny FLUX

Call = Callable[..., Any]  # a network, or what stands before one: takes the network's arguments


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Subject:
    """A network and how it is sampled.

    Args:
        name: In rows.
        network: Uncached; contestants that leave a state on it take copies.
        noise: Where all runs start.
        num_steps: Euler steps of the run that others are compared with.
        predictor: The (guided) velocity as the loop wants it, from a network and a scheduler with timesteps.
        about: Sizes, in a phrase.
    """

    name: str
    network: nn.Module
    noise: Float[Tensor, "b c *cells"]
    num_steps: int
    predictor: Callable[[Call, SchedulerMixin], Predict]
    about: str

    def sample(
        self, call: Call | None = None, *, solver_name: str = "euler", num_steps: int | None = None
    ) -> Float[Tensor, "b c *cells"]:
        """One run.

        Args:
            call: Cached in some way; None = the network.
            solver_name: A key of `SOLVERS`.
            num_steps: None = the subject's own.
        """
        scheduler = self._scheduler(solver_name, num_steps)
        return denoise(self.predictor(call or self.network, scheduler), self.noise, scheduler)

    def clock(self, solver_name: str = "euler", num_steps: int | None = None) -> Clock:
        """When the network is called in such a run; a solver may call it more often than it makes steps."""
        return Clock.flow((self._scheduler(solver_name, num_steps).timesteps / 1000).tolist())

    def _scheduler(self, solver_name: str, num_steps: int | None) -> FlowSolver:
        scheduler = solver(solver_name)
        scheduler.set_timesteps(num_steps or self.num_steps)
        return scheduler


def toy_subject(out: Path | None, toy: Toy | None = None, *, items: int = 8, num_steps: int = 50) -> Subject:
    """The trained toy DiT under classifier-free guidance, as one doubled batch.

    Args:
        out: Folder that keeps the network.
        toy: Its size.
        items: Samples of a run.
        num_steps: Of the run that others are compared with.
    """
    toy = toy or Toy()
    network = toy_dit(toy, out)
    noise = torch.randn(items, CHANNELS, PIXELS, PIXELS, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(items) % CLASSES

    def predictor(call: Call, scheduler: SchedulerMixin) -> Predict:
        return _guided(network, call, scheduler, torch.cat([labels, torch.full_like(labels, CLASSES)]))

    about = f"{toy}, guidance {GUIDANCE:g}, {items} samples, {num_steps} Euler steps"
    return Subject(
        name="DiT", network=network, noise=noise, num_steps=num_steps, predictor=predictor, about=about
    )


@torch.no_grad()
def _guided(network: DiT, call: Call, scheduler: SchedulerMixin, labels: Tensor) -> Predict:
    """The velocity noise - data; the modulation of all steps is made at once."""
    levels, items = scheduler.timesteps / 1000, len(labels)
    tables = iter(ModulationSchedule(network.modulate, 1 - levels, [labels], torch.arange(items)))

    def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        modulation = next(tables)
        return -guided_model(lambda both: call(both, modulation=modulation).sample, x, GUIDANCE)

    return predict


def flux_subject(*, items: int = 2, num_steps: int = 28) -> Subject:
    """FLUX's transformer of diffusers, 4 + 6 blocks with random weights.

    As trained networks, and unlike random ones, it depends on time smoothly: its time embedder does not see the
    features that turn more than once from noise to data.

    Args:
        items: Samples of a run.
        num_steps: Of the run that others are compared with.
    """
    generator = torch.Generator().manual_seed(2)
    network = _tiny_flux(generator)
    tokens = _SIDE * _SIDE
    noise = torch.randn(items, tokens, _LATENTS, generator=generator)
    text = torch.randn(items, _TEXT, _EMBEDDING, generator=generator)
    pooled = torch.randn(items, _EMBEDDING, generator=generator)
    row = torch.arange(tokens)
    places = torch.stack([torch.zeros_like(row), row // _SIDE, row % _SIDE], dim=1)

    def predictor(call: Call, scheduler: SchedulerMixin) -> Predict:
        def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
            return call(
                hidden_states=x,
                timestep=(timestep / 1000).expand(items),
                encoder_hidden_states=text,
                pooled_projections=pooled,
                img_ids=places,
                txt_ids=torch.zeros(_TEXT, 3),
                return_dict=False,
            )[0]

        return predict

    about = (
        f"4 + 6 blocks, 64 wide, {tokens} + {_TEXT} tokens, random weights smooth in time, {items} samples, "
        f"{num_steps} Euler steps"
    )
    return Subject(
        name="FLUX", network=network, noise=noise, num_steps=num_steps, predictor=predictor, about=about
    )


def _tiny_flux(generator: torch.Generator) -> FluxTransformer2DModel:
    network = FluxTransformer2DModel(
        in_channels=_LATENTS,
        num_layers=4,
        num_single_layers=6,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=_EMBEDDING,
        pooled_projection_dim=_EMBEDDING,
        axes_dims_rope=(4, 6, 6),
    )
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
            nn.init.zeros_(module.bias)
    features = network.time_text_embed.timestep_embedder.linear_1.weight
    half = features.shape[1] // 2  # [cos | sin], each from fast to slow
    fast = 1000 * 10000 ** (-torch.arange(half) / half) > 2 * math.pi
    features.data[:, fast.repeat(2)] = 0
    return network.eval()
