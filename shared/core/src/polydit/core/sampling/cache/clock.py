"""Where the steps of a sampling run lie in time: by their number, their noise level or their log signal-to-noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from polydit.core.errors import InputError

Coordinate = Literal["step", "sigma", "log_snr"]
_EDGE = 1e-3  # noise levels 0 and 1 of the straight path have no finite log signal-to-noise; they count as so far off


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """The steps of one run.

    Args:
        num_steps: Steps, each of one or more network calls.
        sigmas: Noise level of each step; empty if no forecaster asks.
        log_snr: Log signal-to-noise ratio of each step; empty if no forecaster asks.

    Raises:
        InputError: No steps, a list of another length, or two neighbours that are equal.
    """

    num_steps: int
    sigmas: tuple[float, ...] = ()
    log_snr: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InputError(f"{self.num_steps} steps", where="num_steps", expected="1 or more")
        for name, times in (("sigmas", self.sigmas), ("log_snr", self.log_snr)):
            if times and len(times) != self.num_steps:
                raise InputError(
                    f"{len(times)} values", where=name, expected=f"one for each of {self.num_steps} steps"
                )
            if any(first == second for first, second in pairwise(times)):
                raise InputError("two steps in a row lie at the same time", where=name)

    @classmethod
    def flow(cls, sigmas: Sequence[float]) -> Clock:
        """Steps on the straight path x = (1 - σ) x₀ + σ ε, whose log SNR is 2 log((1 - σ) / σ).

        Args:
            sigmas: σ of each step, 1 = noise. In log SNR, 0 and 1 count as 0.001 from themselves, or as half as far as
                the nearest level between them if that is less.
        """
        distances = [min(float(sigma), 1.0 - float(sigma)) for sigma in sigmas]
        edge = min([_EDGE, *(distance / 2 for distance in distances if distance > 0.0)])
        inside = [min(max(float(sigma), edge), 1.0 - edge) for sigma in sigmas]
        return cls(
            num_steps=len(inside),
            sigmas=tuple(float(sigma) for sigma in sigmas),
            log_snr=tuple(2.0 * math.log((1.0 - sigma) / sigma) for sigma in inside),
        )

    @classmethod
    def diffusion(cls, alphas_cumprod: Sequence[float]) -> Clock:
        """Steps of a variance-preserving diffusion: σ = √((1 - ᾱ) / ᾱ), and log SNR -2 log σ.

        Args:
            alphas_cumprod: ᾱ of each step, above 0 and below 1.
        """
        sigmas = tuple(math.sqrt((1.0 - float(alpha)) / float(alpha)) for alpha in alphas_cumprod)
        return cls(
            num_steps=len(sigmas), sigmas=sigmas, log_snr=tuple(-2.0 * math.log(sigma) for sigma in sigmas)
        )

    def has(self, coordinate: Coordinate) -> bool:
        """Whether `at` knows it."""
        return coordinate == "step" or bool(getattr(self, self._field(coordinate)))

    def at(self, step: int, coordinate: Coordinate) -> float:
        """The time of a step, counted from 0."""
        return float(step) if coordinate == "step" else float(getattr(self, self._field(coordinate))[step])

    @staticmethod
    def _field(coordinate: Coordinate) -> str:
        return "sigmas" if coordinate == "sigma" else coordinate
