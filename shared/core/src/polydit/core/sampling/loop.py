"""The denoising loop of every domain: a scheduler of diffusers, a prediction, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import torch
from diffusers import SchedulerMixin
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Predict(Protocol):
    """The (guided) network as the loop sees it."""

    def __call__(
        self,
        x: Float[Tensor, " b *rest"],
        timestep: Float[Tensor, ""],
        previous: Float[Tensor, " b *rest"] | None,
    ) -> Float[Tensor, " b *rest"]:
        """Predict at one time; `previous` is the last prediction when the loop self-conditions, else None."""
        ...


@torch.no_grad()
def denoise(
    predict: Predict,
    x: Float[Tensor, " b *rest"],
    scheduler: SchedulerMixin,
    *,
    prediction: Literal["scheduler", "data"] = "scheduler",
    self_condition: bool = False,
    finish_with_prediction: bool = False,
    fresh_noise: Callable[[], Float[Tensor, " b *rest"]] | None = None,
    after_step: Callable[[Float[Tensor, " b *rest"], int], Float[Tensor, " b *rest"]] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    **step_options: object,
) -> Float[Tensor, " b *rest"]:
    """Run a scheduler whose timesteps are set.

    Args:
        predict: The network.
        x: Noise, already scaled to the scheduler's first noise level.
        scheduler: A diffusers scheduler after `set_timesteps`.
        prediction: "scheduler": the network returns what the scheduler expects. "data": it returns the clean sample,
            which becomes a velocity for a flow-matching scheduler: (x - x̂₁) / sigma.
        self_condition: Give each call the prediction before it (Chen et al. 2023, analog bits).
        finish_with_prediction: Call the network once more at the last noise level, 0, and return what it says (ADiT).
        fresh_noise: With "data": draws noise for the stochastic sampler, which keeps nothing of the old noise,
            x ← (1 - sigma') x̂₁ + sigma' ε, and so mends its earlier errors. The same as `stochastic_sampling` of
            diffusers' flow scheduler, whose noise cannot come from the items' own generators.
        after_step: Given the sample after each step and the number of the next call; returns the sample to go on with.
            So a part that is known can be put back.
        on_step: Told (calls done, calls in all) after each call.
        step_options: For `scheduler.step`, such as `eta` or `generator`.

    Returns:
        The sample, shape and dtype of `x`.
    """
    timesteps = scheduler.timesteps
    calls = len(timesteps) + finish_with_prediction
    previous: Tensor | None = None
    for index, timestep in enumerate(timesteps):
        predicted = predict(
            scheduler.scale_model_input(x, timestep) if _scales(scheduler) else x, timestep, previous
        )
        if fresh_noise is not None:
            x = torch.lerp(predicted, fresh_noise(), float(scheduler.sigmas[index + 1]))
        else:
            output = (x - predicted) / scheduler.sigmas[index].to(x) if prediction == "data" else predicted
            x = scheduler.step(output, timestep, x, return_dict=False, **step_options)[0]
        if after_step is not None:
            x = after_step(x, index + 1)
        previous = predicted if self_condition else None
        if on_step is not None:
            on_step(index + 1, calls)
    if finish_with_prediction:
        x = predict(x, torch.zeros_like(timesteps[-1]), previous).to(x.dtype)
        if on_step is not None:
            on_step(calls, calls)
    return x


def _scales(scheduler: SchedulerMixin) -> bool:
    return hasattr(scheduler, "scale_model_input")
