"""Fixed-step solvers of dx/dt = v(x, t) on any grid; diffusers' flow schedulers choose their grids themselves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor],
    x: Float[Tensor, " b *rest"],
    times: Float[Tensor, " s"],
    method: Literal["euler", "heun"] = "euler",
) -> Float[Tensor, " b *rest"]:
    """Integrate from times[0] to times[-1].

    Args:
        velocity: v(x, t) with t of shape (b,).
        x: State at times[0].
        times: Grid, in the order of integration.
        method: "euler" (order 1) or "heun" (order 2: the mean of both ends' slopes).
    """
    for start, end in pairwise(times):
        step = end - start
        slope = velocity(x, start.expand(x.shape[0]))
        if method == "heun":
            slope = (slope + velocity(x + step * slope, end.expand(x.shape[0]))) / 2
        x = x + step * slope
    return x
