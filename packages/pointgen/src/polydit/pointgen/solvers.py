"""Solvers by the names that an option `--solver` takes, and what each of them samples. No heavy imports."""

from __future__ import annotations

from typing import Literal

from polydit.core.errors import CheckpointError, InputError

Solver = Literal["auto", "dpm++", "ddim", "ddpm", "euler"]
SOLVERS: dict[str, tuple[Solver, ...]] = {  # of each stored scheduler, the first is "auto"
    "EDMDPMSolverMultistepScheduler": ("dpm++", "ddim"),
    "FlowMatchEulerDiscreteScheduler": ("dpm++", "euler"),
    "DDPMScheduler": ("ddpm", "ddim", "dpm++"),
}


def check_solver(stored: str, solver: Solver) -> Solver:
    """The solver that "auto" stands for, or `solver` itself.

    Args:
        stored: Class name of the checkpoint's scheduler.
        solver: "dpm++": DPM-Solver++ of order 2 (Lu et al. 2022), for 10 to 25 steps. "ddim" and "euler": order 1.
            "ddpm": ancestral, as published, for many steps.

    Raises:
        CheckpointError: No solver samples such a scheduler's checkpoint.
        InputError: The checkpoint is not of a kind that this solver samples.
    """
    if stored not in SOLVERS:
        raise CheckpointError(f"the part 'scheduler' is of class {stored}", expected=" or ".join(SOLVERS))
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
