"""RDT as a policy: what it is trained on, and how it turns noise into actions.

Shapes: b items, h horizon, a action slots, s state slots.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from jaxtyping import Float, Int
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_generator
from polydit.core.sampling.cache import Cache, CacheReport, Clock, cached
from polydit.core.sampling.loop import denoise
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.rdt.conditions import Conditions, Withholding
from polydit.robopolicy.rdt.network import RDT

Solver = Literal["dpm", "ddpm"]
_Scheduler: TypeAlias = DPMSolverMultistepScheduler | DDPMScheduler
STEPS: dict[Solver, int] = {"dpm": 5, "ddpm": 100}
_DIFFUSION: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "sample",
}
Encoder = Callable[[Float[Tensor, "b k 3 y x"]], Float[Tensor, "b n c"]]


class RDTPolicy:
    """RDT's diffusion over chunks of actions: an `ActionModel`.

    In the layout "unified" states and actions are vectors of 128 slots with the same meaning for all robots, and
    `slots` tells which of them this robot has. In the layout "plain" they are those of the data set, and all slots are
    in use. Either way a batch brings vectors as wide as the network's `state_dim` and `action_dim`.

    Args:
        network: The network.
        slots: Slots in use, for "unified"; None = all, for "plain".
        solver: "dpm" is DPM-Solver++ as published, "ddpm" ancestral sampling.
        num_steps: Network calls per chunk; None = 5 for "dpm" (published), 100 for "ddpm".
        withholding: What training does to the conditions; None = the published.
        encoder: Makes tokens of pictures for a network whose `image_encoder` is "precomputed".

    Raises:
        ValueError: If a slot lies beyond the network's, or the solver is not known.
    """

    def __init__(
        self,
        network: RDT,
        *,
        slots: Sequence[int] | None = None,
        solver: Solver = "dpm",
        num_steps: int | None = None,
        withholding: Withholding | None = None,
        encoder: Encoder | None = None,
    ) -> None:
        if solver not in get_args(Solver):
            raise ValueError(f"unknown solver {solver!r}, expected one of {', '.join(get_args(Solver))}")
        self.network, self.solver, self.encoder = network, solver, encoder
        self.slots = None if slots is None else tuple(slots)
        self.withholding = withholding or Withholding()
        self._num_steps = STEPS[solver] if num_steps is None else num_steps
        self._diffusion = DDPMScheduler(**_DIFFUSION, clip_sample=False)
        self._schedulers: dict[tuple[int, torch.device | None], _Scheduler] = {}
        self._state_mask = self._mask(network.state_dim)
        self._action_mask = self._mask(self.action_dim)

    @property
    def horizon(self) -> int:
        """Actions in a chunk h."""
        return int(self.network.config.horizon)

    @property
    def action_dim(self) -> int:
        """Action slots a."""
        return int(self.network.config.action_dim)

    @property
    def num_steps(self) -> int:
        """Default number of network calls per chunk."""
        return self._num_steps

    @property
    def settings(self) -> dict[str, Any]:
        """What sampling needs beside the network, as plain data: arguments of this class."""
        slots = None if self.slots is None else list(self.slots)
        return {"slots": slots, "solver": self.solver, "num_steps": self.num_steps}

    def loss(self, batch: PolicyBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Squared error of the clean actions at random times t ~ U{0..999}.

        As published, all slots count, also those that are not in use, and so do actions after an episode's end, which
        repeat its last one.
        """
        if batch.actions is None:
            raise ValueError("a training batch needs actions")
        conditions = self.withholding(self.observe(batch), generator)
        noise = torch.randn(batch.actions.shape, generator=generator).to(batch.actions)
        t = torch.randint(_DIFFUSION["num_train_timesteps"], (len(batch),), generator=generator)
        return {"loss": self.error(self._encoded(conditions), batch.actions, noise, t.to(noise.device))}

    def sample(
        self,
        batch: PolicyBatch,
        noise: Float[Tensor, "b h a"],
        num_steps: int | None = None,
        *,
        cache: str | Cache | None = None,
        on_cache: Callable[[CacheReport], object] | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Normalised actions from standard normal noise, zero in slots that are not in use; see `ActionModel`."""
        conditions = self._encoded(self.observe(batch))
        return self.solve(conditions, noise, num_steps, cache=cache, on_cache=on_cache)

    def observe(self, batch: PolicyBatch) -> Conditions:
        """A batch's observations with the masks of this robot.

        Raises:
            InputError: If a state is not as wide as the network's.
        """
        if batch.state.shape[1] != len(self._state_mask):
            raise InputError(
                f"a state has {batch.state.shape[1]} numbers", expected=f"{len(self._state_mask)}"
            )
        sees = self.network.config.image_encoder != "none"
        return Conditions(
            state=batch.state,
            state_mask=self._state_mask.to(batch.state).expand(len(batch), -1),
            action_mask=self._action_mask.to(batch.state).expand(len(batch), -1),
            control_frequency=batch.control_frequency,
            language=batch.language,
            language_mask=None if bool(batch.language_mask.all()) else batch.language_mask,
            images=batch.images if sees else None,
        )

    def noisy(
        self, actions: Float[Tensor, "b h a"], noise: Float[Tensor, "b h a"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b h a"]:
        """Actions at the times t."""
        return self._diffusion.add_noise(actions, noise, t)

    def error(
        self,
        conditions: Conditions,
        actions: Float[Tensor, "b h a"],
        noise: Float[Tensor, "b h a"],
        t: Int[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Mean squared error of the predicted actions at given noise and times."""
        predicted = self.network(self.noisy(actions, noise, t), t, conditions)
        return F.mse_loss(predicted.float(), actions)

    @torch.no_grad()
    def solve(
        self,
        conditions: Conditions,
        noise: Float[Tensor, "b h a"],
        num_steps: int | None = None,
        *,
        cache: str | Cache | None = None,
        on_cache: Callable[[CacheReport], object] | None = None,
    ) -> Float[Tensor, "b h a"]:
        """Run the solver. The conditions' keys and values are computed once, not in every step."""
        contexts = self.network.contexts(conditions)

        def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
            return self.network(x, timestep.expand(len(x)), conditions, contexts).float()

        scheduler = self.scheduler(self.num_steps if num_steps is None else num_steps, noise.device)
        fresh: dict[str, Any] = {"generator": _generators(noise)} if self.solver == "ddpm" else {}
        clock = Clock.diffusion(scheduler.alphas_cumprod[scheduler.timesteps.cpu()].tolist())
        with cached(self.network, cache, clock, on_report=on_cache):
            return denoise(predict, noise, scheduler, **fresh) * conditions.action_mask[:, None]

    def scheduler(self, num_steps: int, device: torch.device | None = None) -> _Scheduler:
        """The solver with its times set, for one sampling.

        Its noise levels are computed once for every number of steps: that takes longer than a call of the network.

        Raises:
            InputError: If the number of steps is not in 1..1000.
        """
        most = _DIFFUSION["num_train_timesteps"]
        if not 1 <= num_steps <= most:
            raise InputError(f"{num_steps} steps", where="num_steps", expected=f"1..{most}")
        if (num_steps, device) not in self._schedulers:
            made = _scheduler(self.solver)
            with warnings.catch_warnings():
                # diffusers 0.42 hands a tensor to numpy in a way that numpy 2 deprecates
                warnings.simplefilter("ignore", DeprecationWarning)
                made.set_timesteps(num_steps, device=device)
            self._schedulers[num_steps, device] = made
        scheduler = copy.copy(self._schedulers[num_steps, device])
        if self.solver == "dpm":
            # all else that `step` changes, it replaces
            scheduler.model_outputs = list(scheduler.model_outputs)
        return scheduler

    def _mask(self, dim: int) -> Float[Tensor, " dim"]:
        if self.slots is None:
            return torch.ones(dim)
        if beyond := [slot for slot in self.slots if not 0 <= slot < dim]:
            raise ValueError(f"slot {beyond[0]} is not among the network's {dim}")
        return torch.zeros(dim).index_fill(0, torch.tensor(self.slots, dtype=torch.int64), 1.0)

    def _encoded(self, conditions: Conditions) -> Conditions:
        """Pictures as the network takes them."""
        if self.network.config.image_encoder != "precomputed":
            return conditions
        if conditions.images is None or self.encoder is None:
            lacking = "pictures" if conditions.images is None else "an encoder for its pictures"
            raise ValueError(f"this policy needs {lacking}")
        with torch.no_grad():
            return replace(conditions, images=self.encoder(conditions.images))


def _scheduler(solver: Solver) -> _Scheduler:
    if solver == "dpm":
        return DPMSolverMultistepScheduler(**_DIFFUSION)
    # "trailing" starts at the last time, where there is nothing but noise
    return DDPMScheduler(**_DIFFUSION, clip_sample=False, timestep_spacing="trailing")


def _generators(noise: Float[Tensor, "b h a"]) -> list[torch.Generator]:
    """Fresh noise of each item follows from its first noise, so it is the same in any batch."""
    return [item_generator(0, row.float().cpu().numpy().tobytes().hex()) for row in noise]
