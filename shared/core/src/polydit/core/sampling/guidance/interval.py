"""Guidance within an interval of noise levels, in the words of diffusers' guiders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from polydit.core.errors import InputError


class Interval(NamedTuple):
    """Shares of a run's steps, as every guider's `start` and `stop` take them."""

    start: float
    stop: float


def steps_between(sigmas: Sequence[float], low: float, high: float) -> Interval:
    """The steps whose noise level lies in (low, high] (Kynkäänniemi et al. 2024).

    Args:
        sigmas: Noise level of each step, falling, without the final zero.
        low: Guidance ends at this level.
        high: Guidance begins at or below this level.

    Raises:
        InputError: No step lies between the levels, or those that do are not neighbours.

    >>> ClassifierFreeGuidance(4.0, **steps_between(scheduler.sigmas[:-1].tolist(), 0.2, 0.8)._asdict())
    """
    inside = [index for index, sigma in enumerate(sigmas) if low < sigma <= high]
    if not inside or inside[-1] - inside[0] >= len(inside):
        raise InputError(
            f"{len(inside) or 'no'} steps lie between the noise levels {low:g} and {high:g}",
            where="guidance",
            expected="neighbouring steps within the run's levels"
            + (f", {min(sigmas):g} to {max(sigmas):g}" if sigmas else ""),
        )
    # guiders cut start · n and stop · n down to whole steps: half a step more is safe from rounding
    count = len(sigmas)
    return Interval((inside[0] + 0.5) / count, min((inside[-1] + 1.5) / count, 1.0))
