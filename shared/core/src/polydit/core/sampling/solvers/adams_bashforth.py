"""Adams-Bashforth on any grid: the slopes of the last calls are used again, so a step of order 2 or 3 costs one call.

Hairer, Nørsett & Wanner, "Solving Ordinary Differential Equations I", section III.5 (variable step size).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.sampling.solvers.flow_solver import FlowSolver, halved

MAX_GROWTH = 8.0  # a step that is longer than this × the way back to a slope does not use that slope


def adams_bashforth_weights(levels: Sequence[float], end: float) -> list[float]:
    """Weights w with Σ w_j v_j = ∫ p dσ from levels[0] to `end`, p the polynomial through (levels_j, v_j).

    With τ_j = (level_j - level_0) / h they solve Σ_j τ_j^k w_j = h / (k + 1), so equal steps give h · (3/2, -1/2) and
    h · (23/12, -16/12, 5/12).

    Args:
        levels: Distinct levels, the present one first.
        end: The next level.
    """
    step = end - levels[0]
    places = (np.asarray(levels) - levels[0]) / step
    powers = np.arange(len(levels))
    weights = np.linalg.solve(places[None] ** powers[:, None], 1.0 / (powers + 1.0))
    return [float(weight) * step for weight in weights]


class AdamsBashforthScheduler(FlowSolver):
    """The family; its members say how many slopes a step uses.

    Order 2 begins with an Euler step. After an Euler step order 3 would be lost for good, so it begins with a midpoint
    step, one call more. A run that begins in the middle of the grid begins with Euler.
    """

    slopes: ClassVar[int]
    _start: Tensor | None = None
    _past: tuple[tuple[float, Tensor], ...] = ()

    def _calls(
        self, levels: Float[Tensor, " s"], times: Float[Tensor, " s"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " c"]]:
        if self.slopes < 3:
            return levels, times[:-1]
        levels, times = (torch.cat([halved(grid[:2]), grid[2:]]) for grid in (levels, times))
        return levels, times[:-1]

    def _advance(self, index: int, v: Tensor, x: Tensor) -> Tensor:
        levels = self._levels
        if index == 1 and self._start is not None:
            return self._start + (levels[2] - levels[0]) * v
        now, end = levels[index], levels[index + 1]
        if index == 0 and self.slopes == 3:
            self._start, self._past = x, ((now, v),)
            return x + (end - now) * v
        self._past = ((now, v), *self._past)[: self.slopes]
        near, *far = self._past
        usable = [near, *(one for one in far if MAX_GROWTH * abs(one[0] - now) >= abs(end - now))]
        weights = adams_bashforth_weights([level for level, _ in usable], end)
        for weight, (_, slope) in zip(weights, usable, strict=True):
            x = x + weight * slope
        return x

    def _forget(self) -> None:
        self._start, self._past = None, ()


class EulerScheduler(AdamsBashforthScheduler):
    """x ← x + h · v: order 1, one call a step."""

    slopes = 1


class AB2Scheduler(AdamsBashforthScheduler):
    """Order 2, one call a step."""

    slopes = 2


class AB3Scheduler(AdamsBashforthScheduler):
    """Order 3, one call a step and one more at the start."""

    slopes = 3


class EulerInverseScheduler(EulerScheduler):
    """Euler's rule from data to noise."""

    inverse: ClassVar[bool] = True


class AB2InverseScheduler(AB2Scheduler):
    """Adams-Bashforth of order 2 from data to noise."""

    inverse: ClassVar[bool] = True


class AB3InverseScheduler(AB3Scheduler):
    """Adams-Bashforth of order 3 from data to noise."""

    inverse: ClassVar[bool] = True
