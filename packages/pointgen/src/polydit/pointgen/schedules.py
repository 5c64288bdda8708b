"""The published noise schedules, and the schedulers of diffusers that sample with them.

A checkpoint stores one scheduler, which says what its network predicts: `EDMDPMSolverMultistepScheduler` EDM's own
target, `FlowMatchEulerDiscreteScheduler` a velocity, `DDPMScheduler` the noise, as published. The solver is chosen when
it samples.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from jaxtyping import Float64

from polydit.core.errors import InputError
from polydit.core.objectives.edm import EDM

Solver = Literal["auto", "dpm++", "ddim", "ddpm", "euler"]
STORED = (EDMDPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, DDPMScheduler)
SOLVERS: dict[str, tuple[Solver, ...]] = {  # of each stored scheduler, the first is "auto"
    "EDMDPMSolverMultistepScheduler": ("dpm++", "ddim"),
    "FlowMatchEulerDiscreteScheduler": ("dpm++", "euler"),
    "DDPMScheduler": ("ddpm", "ddim", "dpm++"),
}
LOWEST, HIGHEST = 0.02, 80.0  # noise levels that sampling visits, for data of deviation 1

_STEPS = 1000
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


def check_solver(stored: str, solver: Solver) -> Solver:
    """The solver that "auto" stands for, or `solver` itself.

    Args:
        stored: Class name of the checkpoint's scheduler.
        solver: "dpm++": DPM-Solver++ of order 2 (Lu et al. 2022), for 10 to 25 steps. "ddim" and "euler": order 1.
            "ddpm": ancestral, as published, for many steps.

    Raises:
        InputError: The checkpoint is not of a kind that this solver samples.
    """
    known = SOLVERS[stored]
    if solver == "auto":
        return known[0]
    if solver not in known:
        raise InputError(
            f"this checkpoint cannot be sampled by {solver}",
            where=f"--solver {solver}",
            expected=" or ".join(known),
        )
    return solver


def solver_of(stored: Any, solver: Solver = "auto") -> Any:
    """A scheduler that samples a checkpoint; arguments as in `check_solver`, with the scheduler itself."""
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
