"""UniInv: an inversion that Euler sampling undoes better than Euler's own (Jiao et al. 2025, as in ConsistEdit)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.sampling.solvers.flow_solver import FlowSolver


class UniInvScheduler(FlowSolver):
    """Data to noise; each slope is taken at the end of the interval that it moves over, as Euler's way back takes it.

    With z at level σ_{i-1} and x̂_i predicted for σ_i::

        z ← z + (σ_i - σ_{i-1}) · v(x̂_i, σ_i)          x̂_{i+1} = z + (σ_{i+1} - σ_i) · v(x̂_i, σ_i)

    The network is called at every level, the last one too. The grid is that of `FlowMatchEulerDiscreteScheduler` in
    reverse, to which the inversion belongs; sample back with it.
    """

    inverse: ClassVar[bool] = True
    _kept: Tensor | None = None
    _origin: float | None = None
    _options: tuple[bool, float] = (False, 1.0)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
        timesteps: list[float] | None = None,
        zero_initial: bool = False,
        alpha: float = 1.0,
    ) -> None:
        """As in `FlowSolver`.

        Args:
            num_inference_steps: Steps.
            device: Where `timesteps` and `sigmas` lie.
            sigmas: Falling levels above 0; None = those of diffusers.
            mu: As in `FlowSolver`.
            timesteps: As in `FlowSolver`.
            zero_initial: Leave out the call at level 0: the data is taken for the prediction at the next level.
            alpha: 0 < alpha ≤ 1; invert only the first floor(alpha · steps) steps.

        Raises:
            InputError: As in `FlowSolver`, or no step is left.
        """
        self._options = (zero_initial, alpha)
        super().set_timesteps(num_inference_steps, device, sigmas, mu, timesteps)

    def _default_sigmas(self, steps: int) -> None:
        if steps < 1:
            raise InputError(f"{steps} steps cannot invert", expected="at least 1 step")

    def _calls(
        self, levels: Float[Tensor, " s"], times: Float[Tensor, " s"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " c"]]:
        zero_initial, alpha = self._options
        steps = len(levels) - 1
        inverted = math.floor(alpha * steps)
        if not 1 <= inverted <= steps:
            raise InputError(f"alpha {alpha:g} of {steps} steps", expected="between 1 step and all of them")
        self._origin = float(levels[0]) if zero_initial else None
        kept = slice(int(zero_initial), inverted + 1)
        return levels[kept], times[kept]

    def _advance(self, index: int, v: Tensor, x: Tensor) -> Tensor:
        levels = self._levels
        if self._kept is not None:
            self._kept = self._kept + (levels[index] - levels[index - 1]) * v
        elif index == 0 and self._origin is not None:
            self._kept = x + (levels[0] - self._origin) * v
        else:
            self._kept = x
        if index + 1 == len(levels):
            return self._kept
        return self._kept + (levels[index + 1] - levels[index]) * v

    def _forget(self) -> None:
        self._kept = None
