"""The explicit midpoint rule: order 2, two calls a step. RF-Solver is this rule (Wang et al. 2024)."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.sampling.solvers.flow_solver import FlowSolver, halved


class MidpointScheduler(FlowSolver):
    """x ← x + h · v(x + h/2 · v(x, σ), σ + h/2).

    RF-Solver writes it with a slope's difference, x + h v + h²/2 · (v_mid - v) / (h/2), which is the same.
    """

    order = 2  # network calls per step, by which diffusers' pipelines count
    _start: Tensor | None = None

    def _calls(
        self, levels: Float[Tensor, " s"], times: Float[Tensor, " s"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " c"]]:
        return halved(levels), halved(times)[:-1]

    def _advance(self, index: int, v: Tensor, x: Tensor) -> Tensor:
        levels = self._levels
        if index % 2 == 0:
            self._start = x
            return x + (levels[index + 1] - levels[index]) * v
        if self._start is None:
            raise InputError(
                f"{type(self).__name__} cannot begin in the middle of a step",
                where=f"call {index}",
                expected="an even call",
            )
        return self._start + (levels[index + 1] - levels[index - 1]) * v

    def _forget(self) -> None:
        self._start = None


class MidpointInverseScheduler(MidpointScheduler):
    """The midpoint rule from data to noise."""

    inverse: ClassVar[bool] = True
