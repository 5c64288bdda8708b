"""Solvers by the names that an option `--solver` takes."""

from __future__ import annotations

from diffusers import SchedulerMixin

from polydit.core.errors import InputError
from polydit.core.sampling.solvers.adams_bashforth import (
    AB2InverseScheduler,
    AB2Scheduler,
    AB3InverseScheduler,
    AB3Scheduler,
    EulerInverseScheduler,
    EulerScheduler,
)
from polydit.core.sampling.solvers.flow_solver import FlowSolver
from polydit.core.sampling.solvers.midpoint import MidpointInverseScheduler, MidpointScheduler
from polydit.core.sampling.solvers.uni_inv import UniInvScheduler

SOLVERS: dict[str, type[FlowSolver]] = {
    "euler": EulerScheduler,
    "midpoint": MidpointScheduler,
    "rf-solver": MidpointScheduler,
    "ab2": AB2Scheduler,
    "ab3": AB3Scheduler,
}
INVERSIONS: dict[str, type[FlowSolver]] = {
    "euler": EulerInverseScheduler,
    "midpoint": MidpointInverseScheduler,
    "rf-solver": MidpointInverseScheduler,
    "ab2": AB2InverseScheduler,
    "ab3": AB3InverseScheduler,
    "uniinv": UniInvScheduler,
}


def solver(name: str, like: SchedulerMixin | None = None, *, inverse: bool = False) -> FlowSolver:
    """A solver with another flow scheduler's shift, clock and token range.

    Args:
        name: A key of `SOLVERS`, or with `inverse` of `INVERSIONS`.
        like: A flow-matching scheduler of diffusers; None = unshifted, timesteps 0..1000.
        inverse: From data to noise.

    Raises:
        InputError: An unknown name, or a scheduler that is not of flow matching.
    """
    table = INVERSIONS if inverse else SOLVERS
    if name not in table:
        raise InputError(f"no solver {name!r}", where="solver", expected=", ".join(table))
    if like is None:
        return table[name]()
    config = dict(like.config)
    if "flow_shift" in config and config.get("use_flow_sigmas"):  # UniPC and DPM-Solver on the straight path
        return table[name](num_train_timesteps=config["num_train_timesteps"], shift=config["flow_shift"])
    if "shift" not in config or "num_train_timesteps" not in config:
        raise InputError(
            f"{name} solves flow matching, and {type(like).__name__} is not of flow matching",
            where="solver",
            expected="a checkpoint with a flow-matching scheduler",
        )
    return table[name].from_config(config)
