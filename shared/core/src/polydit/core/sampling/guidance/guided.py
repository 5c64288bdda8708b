"""A guider of diffusers as the denoising loop's prediction.

Shapes: b items.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

import torch
from diffusers.guiders import BaseGuidance, ClassifierFreeGuidance
from jaxtyping import Float, Int
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache.hooks import handling
from polydit.core.sampling.guidance.perturbations import check_not_cached, perturbations_of

Condition = Tensor | tuple[Tensor, Tensor]  # (with, without); a tensor alone belongs to both


class Guided:
    """One guided sampling run: a `Predict` for `denoise`.

    Predictions of the network as it is go in one call; one of the perturbed network has its own. Steps outside the
    guider's intervals, or at a scale that guides by nothing, make one call of b items. The guider is copied, and the
    network is changed only during the calls and in their thread: a run leaves nothing behind.

    Args:
        network: Whose blocks and heads the guider perturbs: ours or one of diffusers.
        call: Calls the network: (x, timestep, **conditions, and `previous` if the loop self-conditions) → prediction
            of x's items. It is given b items or several times as many.
        guider: Of diffusers, or `SoftPAG`.
        conditions: What `call` is given by name, a row for each item: (with, without) pairs, or the same for both.
        num_steps: Calls of the loop: steps, and one more if it finishes with a prediction.
        channels: Only this many leading channels are guided; see `guided_model`. None = all.

    Raises:
        InputError: A number of the guider is not finite, the network lacks what it perturbs, there is no step.

    >>> guider = ClassifierFreeGuidance(guidance_scale=4.0, stop=0.6)
    >>> def call(x, timestep, labels):
    ...     return network(x, timestep.expand(len(x)), labels).sample
    >>> guided = Guided(network, call, guider, {"labels": (labels, null)}, num_steps=50)
    >>> x = denoise(guided, noise, scheduler)
    """

    def __init__(
        self,
        network: nn.Module,
        call: Callable[..., Tensor],
        guider: BaseGuidance,
        conditions: Mapping[str, Condition],
        *,
        num_steps: int,
        channels: int | None = None,
    ) -> None:
        if num_steps < 1:
            raise InputError(f"{num_steps} steps", where="num_steps", expected="1 or more")
        _check_finite(guider)
        self.call, self.conditions = call, conditions
        self.guider = copy.deepcopy(guider)
        self.num_steps, self.channels = num_steps, channels
        self._perturbations = perturbations_of(self.guider, network)
        self._one_batch = all(
            isinstance(value, Tensor) or value[0].shape == value[1].shape for value in conditions.values()
        )
        self._batches: dict[tuple[str, ...], dict[str, Tensor]] = {}
        self._step = 0

    @property
    def calls_per_step(self) -> tuple[int, ...]:
        """Network calls of each step: what the guidance costs, and what a feature cache is told of it."""
        guider, counts = copy.deepcopy(self.guider), []
        for step in range(self.num_steps):
            guider.set_state(step, self.num_steps, None)
            counts.append(len(self._calls(self._needed(_names(guider)))))
        return tuple(counts)

    def __call__(
        self,
        x: Float[Tensor, " b *rest"],
        timestep: Float[Tensor, ""] | Int[Tensor, ""],
        previous: Float[Tensor, " b *rest"] | None,
    ) -> Float[Tensor, " b *rest"]:
        """Predict, guided; see `Predict`.

        Raises:
            InputError: The run is over, or a condition has not a row for each item.
        """
        if self._step == self.num_steps:
            raise InputError(
                f"step {self.num_steps + 1} of a run of {self.num_steps}",
                where="guidance",
                hint="Make a Guided for every run, with all its steps",
            )
        self.guider.set_state(self._step, self.num_steps, timestep)
        states = self.guider.prepare_inputs({})
        names = self._needed([getattr(state, self.guider._identifier_key) for state in states])
        predictions: dict[str, Tensor] = {}
        for together in self._calls(names):
            found = self._predict(together, x, timestep, previous)
            predictions |= zip(together, found.unflatten(0, (len(together), len(x))), strict=True)
        self._step += 1
        if len(names) < len(states):
            return predictions["pred_uncond"]
        for state, name in zip(states, names, strict=True):
            state.noise_pred = predictions[name][:, : self.channels]
        guided: Tensor = self.guider(states).pred
        if self.channels is None:
            return guided
        return torch.cat([guided, predictions["pred_cond"][:, self.channels :]], dim=1)

    def _needed(self, names: list[str]) -> list[str]:
        """Without the conditional prediction where plain guidance at scale 0 has no use for it."""
        guider = self.guider
        unconditional = (
            type(guider) is ClassifierFreeGuidance
            and guider.guidance_scale == 0.0
            and not guider.use_original_formulation
            and guider.guidance_rescale == 0.0
            and self.channels is None
        )
        return ["pred_uncond"] if unconditional and "pred_uncond" in names else names

    def _calls(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The predictions that go into each call of the network."""
        plain = tuple(name for name in names if name not in self._perturbations)
        calls: list[tuple[str, ...]] = [plain] if plain and self._one_batch else [(name,) for name in plain]
        return calls + [(name,) for name in names if name in self._perturbations]

    def _predict(
        self, names: tuple[str, ...], x: Tensor, timestep: Tensor, previous: Tensor | None
    ) -> Tensor:
        """One call of the network."""
        given = self._conditions(names, len(x))
        if previous is not None:
            given = given | {"previous": torch.cat([previous] * len(names))}
        handlers = self._perturbations.get(names[0])
        if handlers is not None:
            check_not_cached(handlers)
        with nullcontext() if handlers is None else handling(handlers):
            return self.call(x if len(names) == 1 else torch.cat([x] * len(names)), timestep, **given)

    def _conditions(self, names: tuple[str, ...], items: int) -> dict[str, Tensor]:
        if names not in self._batches:
            batch: dict[str, Tensor] = {}
            for key, value in self.conditions.items():
                # the perturbed network has the condition, whichever place its prediction takes
                rows = [
                    value if isinstance(value, Tensor) else value[name == "pred_uncond"] for name in names
                ]
                if wrong := [len(part) for part in rows if len(part) != items]:
                    raise InputError(
                        f"{wrong[0]} rows",
                        where=f"the condition {key}",
                        expected=f"one for each of {items} items",
                    )
                batch[key] = rows[0] if len(rows) == 1 else torch.cat(rows)
            self._batches[names] = batch
        return self._batches[names]


def _names(guider: BaseGuidance) -> list[str]:
    return [getattr(state, guider._identifier_key) for state in guider.prepare_inputs({})]


def _check_finite(guider: BaseGuidance) -> None:
    for name, value in vars(guider).items():
        for number in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise InputError(
                    f"{name} is {number}", where=type(guider).__name__, expected="a finite number"
                )
