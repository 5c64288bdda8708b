"""What all solvers of dx/dσ = v(x, σ) share: the grid of noise levels, whose turn it is, and precision.

σ is diffusers' noise level of flow matching, x = (1 - σ) · data + σ · noise, and v = noise - data.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteSchedulerOutput
from jaxtyping import Float
from torch import Tensor

from polydit.core.errors import InputError


def even_sigmas(steps: int) -> list[float]:
    """Levels 1, 1 - 1/n, ..., 1/n: n equal steps down to 0, which `set_timesteps` appends."""
    if steps < 1:
        raise InputError(f"{steps} steps cannot sample", expected="at least 1 step")
    return [1.0 - step / steps for step in range(steps)]


class FlowSolver(FlowMatchEulerDiscreteScheduler):
    """A deterministic solver with the configuration of diffusers' flow scheduler, so it stands in for it anywhere.

    `timesteps` has one entry for each network call, `sigmas` the level of each call and the final one. Unless levels
    are given, the grid is `even_sigmas`, shifted as configured. That of `FlowMatchEulerDiscreteScheduler` ends with a
    step of 0.001, which costs as many network calls as the others, and an inversion would begin with it.

    Attributes:
        inverse: Whether it goes from data to noise: the same levels in reverse, from 0 to the first of them. A list of
            levels that begins below 1 so inverts to that level only.

    Note:
        An object serves one run at a time, like every scheduler of diffusers. It keeps tensors only during a run.
    """

    inverse: ClassVar[bool] = False
    sigmas: Tensor
    timesteps: Tensor
    _step_index: int | None
    _begin_index: int | None
    _levels: tuple[float, ...] = ()
    _first = 0

    def shift_for(self, tokens: int) -> float:
        """`mu` of `set_timesteps` for a number of tokens: linear through the two configured points (FLUX, SD 3)."""
        config = self.config
        slope = (config.max_shift - config.base_shift) / (
            config.max_image_seq_len - config.base_image_seq_len
        )
        return config.base_shift + slope * (tokens - config.base_image_seq_len)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
        timesteps: list[float] | None = None,
    ) -> None:
        """Lay out the network calls of a run.

        Args:
            num_inference_steps: Steps from one level to the next; a step may take two calls.
            device: Where `timesteps` and `sigmas` lie.
            sigmas: Falling levels above 0, before the configured shift; None = `even_sigmas`.
            mu: Shift by the number of tokens, see `shift_for`; only and always with `use_dynamic_shifting`.
            timesteps: What the network is told at each level, if that is not the level times `num_train_timesteps`.

        Raises:
            InputError: No steps, levels that do not fall, or a configuration that wants noise in every step.
        """
        if self.config.stochastic_sampling:
            raise InputError(
                f"{type(self).__name__} is deterministic, and the configuration says stochastic_sampling",
                hint="Use FlowMatchEulerDiscreteScheduler, or from_config(config, stochastic_sampling=False)",
            )
        if sigmas is None and timesteps is None:
            sigmas = self._default_sigmas(num_inference_steps or 0)
        super().set_timesteps(num_inference_steps, device=device, sigmas=sigmas, mu=mu, timesteps=timesteps)
        levels = self.sigmas
        rise = levels.diff() if self.config.invert_sigmas else -levels.diff()
        if not bool((rise > 0).all()):  # a NaN counts as wrong
            raise InputError(
                "the noise levels do not fall",
                where="sigmas",
                expected="each level below the one before it, and the last above 0, which is appended",
            )
        times = torch.cat([self.timesteps, levels[-1:] * self.config.num_train_timesteps])
        if self.inverse:
            levels, times = levels.flip(0), times.flip(0)
        self.sigmas, self.timesteps = self._calls(levels, times)
        self._levels = tuple(self.sigmas.tolist())
        self._forget()

    def step(
        self,
        model_output: Float[Tensor, " b *rest"],
        timestep: Float[Tensor, ""] | float,
        sample: Float[Tensor, " b *rest"],
        return_dict: bool = True,
    ) -> FlowMatchEulerDiscreteSchedulerOutput | tuple[Float[Tensor, " b *rest"]]:
        """Go on to the next call's level; computed in at least float32, returned in the sample's dtype.

        Args:
            model_output: v at `sample` and `timestep`.
            timestep: The entry of `timesteps` whose turn it is. The first one begins a new run, whatever became of
                the run before it.
            sample: What the network was given.
            return_dict: False returns a tuple of one tensor.

        Raises:
            InputError: The timestep is not the next one, or `set_timesteps` was not called.
        """
        index = self._turn(float(timestep))
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        moved = self._advance(index, model_output.to(x), x).to(sample.dtype)
        self._step_index = index + 1
        if self._step_index == len(self.timesteps):
            self._forget()
        return (moved,) if not return_dict else FlowMatchEulerDiscreteSchedulerOutput(prev_sample=moved)

    def _default_sigmas(self, steps: int) -> list[float] | None:
        """The grid when the caller gives none; None = that of diffusers."""
        return even_sigmas(steps)

    def _calls(
        self, levels: Float[Tensor, " s"], times: Float[Tensor, " s"]
    ) -> tuple[Float[Tensor, " k"], Float[Tensor, " c"]]:
        """From a grid of levels and what the network is told there: the levels of all calls and their timesteps."""
        return levels, times[:-1]

    def _advance(self, index: int, v: Tensor, x: Tensor) -> Tensor:
        """The sample for call `index + 1` from that of call `index`."""
        raise NotImplementedError

    def _forget(self) -> None:
        """Drop what was kept of earlier calls."""

    def _turn(self, timestep: float) -> int:
        """The number of this call; diffusers' Euler scheduler goes on counting after a run that broke off."""
        if not self._levels:
            raise InputError(f"{type(self).__name__} has no timesteps yet", hint="Call set_timesteps first")
        turn = self._step_index
        if turn is not None and turn < len(self.timesteps) and self._is(turn, timestep):
            return turn
        begins = self._first if turn is not None else self._begin_index
        if begins is None:
            found = np.flatnonzero(self.timesteps.cpu().numpy() == np.float32(timestep))
            begins = int(found[0]) if len(found) else None
        if begins is None or not self._is(begins, timestep):
            raise InputError(
                f"{type(self).__name__} was given timestep {timestep:g} out of turn",
                expected="the entries of its timesteps, one after another",
                hint="Give every run a scheduler of its own, and call set_timesteps before it",
            )
        self._forget()
        self._first = begins
        return begins

    def _is(self, index: int, timestep: float) -> bool:
        return float(self.timesteps[index]) == float(np.float32(timestep))


def halved(grid: Float[Tensor, " s"]) -> Float[Tensor, " k"]:
    """The grid with the middle of each interval put between its ends."""
    middles = (grid[:-1] + grid[1:]) / 2
    return torch.cat([torch.stack([grid[:-1], middles], dim=1).flatten(), grid[-1:]])
