"""The published noise schedules, and the schedulers of diffusers that sample with them.

A checkpoint stores one scheduler, which says what its network predicts: `EDMDPMSolverMultistepScheduler` EDM's own
target, `FlowMatchEulerDiscreteScheduler` a velocity, `DDPMScheduler` the noise, as published. The solver is chosen when
it samples. `NoiseSchedule` says what the steps of any of them mean. Shapes: s steps, n points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from jaxtyping import Float, Float64, Int
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.objectives import EDM
from polydit.core.sampling.cache import Clock
from polydit.pointgen.solvers import Solver, check_solver

STORED = (EDMDPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, DDPMScheduler)
LOWEST, HIGHEST = 0.02, 80.0  # noise levels that sampling visits, for data of deviation 1

_STEPS = 1000
_LEAST = 1e-6  # share of signal that a call of pure noise counts as having: its logarithm is finite
# first and last beta, and the share of the steps in which one becomes the other (DiT-3D, get_betas)
_SCHEDULES = {
    "linear": (1e-4, 0.02, 1.0),
    "warm0.1": (1e-5, 0.008, 0.1),
    "warm0.2": (1e-5, 0.008, 0.2),
    "warm0.5": (1e-5, 0.008, 0.5),
}


def betas(schedule: str) -> Float64[np.ndarray, " 1000"]:
    """β_t of a published schedule.

    Raises:
        InputError: There is no schedule of that name.
    """
    if schedule not in _SCHEDULES:
        raise InputError(f"no schedule {schedule!r}", expected=", ".join(_SCHEDULES))
    first, last, share = _SCHEDULES[schedule]
    rise = round(_STEPS * share)
    return np.concatenate([np.linspace(first, last, rise), np.full(_STEPS - rise, last)])


def edm_scheduler() -> EDMDPMSolverMultistepScheduler:
    """Of networks trained by EDM's objective on data of deviation 1."""
    return EDM(sigma_data=1.0).scheduler(low=LOWEST, high=HIGHEST, order=2)


def flow_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Of networks that predict the velocity of the straight path."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=_STEPS, shift=1.0)


def noise_scheduler(schedule: str) -> DDPMScheduler:
    """Of networks that predict noise: the published sampler, which clips nothing."""
    return DDPMScheduler(
        num_train_timesteps=_STEPS,
        trained_betas=betas(schedule).tolist(),
        variance_type="fixed_small",
        clip_sample=False,
        prediction_type="epsilon",
    )


def solver_of(stored: Any, solver: Solver = "auto") -> Any:
    """A scheduler that samples a checkpoint; arguments and errors as of `check_solver`, with the scheduler itself."""
    kind = type(stored).__name__
    match check_solver(kind, solver), kind:
        case "dpm++", "EDMDPMSolverMultistepScheduler":
            return type(stored).from_config(stored.config, solver_order=2)
        case "ddim", "EDMDPMSolverMultistepScheduler":  # order 1 is DDIM
            return type(stored).from_config(stored.config, solver_order=1)
        case "dpm++", "FlowMatchEulerDiscreteScheduler":
            return DPMSolverMultistepScheduler(
                num_train_timesteps=_STEPS, prediction_type="flow_prediction", use_flow_sigmas=True
            )
        case "dpm++", _:
            return DPMSolverMultistepScheduler.from_config(stored.config, timestep_spacing="trailing")
        case "ddim", _:
            return DDIMScheduler.from_config(stored.config, timestep_spacing="trailing")
        case _:
            return type(stored).from_config(stored.config)


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseSchedule:
    """The steps of a sampler: before call i a cloud is x = signal[i] · data + noise[i] · ε, where ε has deviation 1.

    Attributes:
        signal: Share of the data before each call, and after the last one: there it is 1.
        noise: Deviation of the noise, likewise: there it is 0.
        times: What the network is told in each call.
        start: Deviation of the noise that sampling starts from; nothing of the data is in it.
        sign: 1, or -1 where the scheduler asks for the opposite of what the network predicts.
    """

    signal: tuple[float, ...]
    noise: tuple[float, ...]
    times: Float[Tensor, " s"] | Int[Tensor, " s"]
    start: float = 1.0
    sign: float = 1.0

    @classmethod
    def of(cls, scheduler: Any) -> NoiseSchedule:
        """Of a scheduler from `solver_of` whose timesteps are set."""
        if isinstance(scheduler, EDMDPMSolverMultistepScheduler):
            return cls._exploding(scheduler)
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or scheduler.config.get("use_flow_sigmas"):
            return cls._straight(scheduler)
        return cls._preserving(scheduler)

    @classmethod
    def _exploding(cls, scheduler: Any) -> NoiseSchedule:
        """x = data + σ ε (Karras et al. 2022, section 2)."""
        # not diffusers' `init_noise_sigma`, which would add the deviation of the data to the start
        levels = scheduler.sigmas[:-1].tolist()
        signal = (1.0,) * (len(levels) + 1)
        return cls(signal=signal, noise=(*levels, 0.0), times=scheduler.timesteps, start=levels[0])

    @classmethod
    def _straight(cls, scheduler: Any) -> NoiseSchedule:
        """x = (1 - σ) data + σ ε (Liu et al. 2023, equation 1).

        The network is told the share of data and predicts data - ε; diffusers counts thousandths of noise, and its
        velocity points to the noise.
        """
        noise = (*scheduler.sigmas[:-1].tolist(), 0.0)
        signal = tuple(1.0 - level for level in noise)
        return cls(signal=signal, noise=noise, times=1.0 - scheduler.sigmas[:-1], sign=-1.0)

    @classmethod
    def _preserving(cls, scheduler: Any) -> NoiseSchedule:
        """x = √ᾱ data + √(1 - ᾱ) ε (Ho et al. 2020, equation 4)."""
        kept = (*scheduler.alphas_cumprod[scheduler.timesteps.cpu()].tolist(), 1.0)
        signal, noise = tuple(a**0.5 for a in kept), tuple((1.0 - a) ** 0.5 for a in kept)
        return cls(signal=signal, noise=noise, times=scheduler.timesteps)

    @property
    def clock(self) -> Clock:
        """The calls in time, for caches: σ is the noise over the signal."""
        calls = zip(self.signal[:-1], self.noise[:-1], strict=True)
        kept = (signal**2 / (signal**2 + noise**2) for signal, noise in calls)
        return Clock.diffusion([min(max(share, _LEAST), 1.0 - _LEAST) for share in kept])

    def noisy(
        self, data: Float[Tensor, "n 3"], noise: Float[Tensor, "n 3"], index: int
    ) -> Float[Tensor, "n 3"]:
        """`data` as it is before call `index`; after the last one it has no noise."""
        return self.signal[index] * data + self.noise[index] * noise
