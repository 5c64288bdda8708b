"""Solvers of flow matching as diffusers schedulers, and the way back from data to noise."""

from polydit.core.sampling.solvers.adams_bashforth import (
    AB2InverseScheduler,
    AB2Scheduler,
    AB3InverseScheduler,
    AB3Scheduler,
    EulerInverseScheduler,
    EulerScheduler,
    adams_bashforth_weights,
)
from polydit.core.sampling.solvers.flow_solver import FlowSolver, even_sigmas
from polydit.core.sampling.solvers.midpoint import MidpointInverseScheduler, MidpointScheduler
from polydit.core.sampling.solvers.names import INVERSIONS, SOLVERS, solver
from polydit.core.sampling.solvers.uni_inv import UniInvScheduler

__all__ = [
    "INVERSIONS",
    "SOLVERS",
    "AB2InverseScheduler",
    "AB2Scheduler",
    "AB3InverseScheduler",
    "AB3Scheduler",
    "EulerInverseScheduler",
    "EulerScheduler",
    "FlowSolver",
    "MidpointInverseScheduler",
    "MidpointScheduler",
    "UniInvScheduler",
    "adams_bashforth_weights",
    "even_sigmas",
    "solver",
]
