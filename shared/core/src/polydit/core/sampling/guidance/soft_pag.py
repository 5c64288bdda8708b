"""SoftPAG: guidance away from the network whose attention maps are moved toward the identity in chosen heads."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.guiders import BaseGuidance
from diffusers.guiders.guider_utils import GuiderOutput, rescale_noise_cfg
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache.hooks import handling
from polydit.core.sampling.guidance.heads import Head, identity_handlers
from polydit.core.sampling.guidance.perturbations import Perturbations


class SoftPAG(BaseGuidance):
    """Perturbed-attention guidance by heads (Ahn et al. 2025, "Fine-grained perturbation guidance").

    The perturbed network has the maps (1 - u) A + u I in the chosen heads, and the prediction becomes
    u + s (c - u) + w (c - p), see the package's table. All heads of a block and u = 1 are diffusers'
    `PerturbedAttentionGuidance` on that block; u = 0, w = 0 or no heads leave the perturbed call out.

    Args:
        heads: (block, head) pairs. Blocks are counted over all lists of the network.
        strength: u, 0..1: how far the maps go toward the identity.
        perturbed_guidance_scale: w; 0 = none.
        guidance_scale: s of classifier-free guidance; 1 = none.
        perturbed_guidance_start: Share of the steps after which the perturbation begins.
        perturbed_guidance_stop: Share of the steps after which it ends.
        guidance_rescale: Share of the rescaling to the deviation of c (Lin et al. 2024, section 3.4).
        start: Share of the steps after which classifier-free guidance begins.
        stop: Share of the steps after which it ends.
        enabled: False leaves only the conditional prediction.

    Raises:
        InputError: u or an interval lies outside 0..1, or a head is not a pair of numbers from 0 up.
    """

    _input_predictions = ["pred_cond", "pred_uncond", "pred_cond_skip"]  # noqa: RUF012  diffusers asks for a list

    @register_to_config
    def __init__(
        self,
        *,  # diffusers takes what is given by position for a default, and loses it in `from_config`
        heads: Sequence[Sequence[int]],
        strength: float = 1.0,
        perturbed_guidance_scale: float = 3.0,
        guidance_scale: float = 1.0,
        perturbed_guidance_start: float = 0.0,
        perturbed_guidance_stop: float = 1.0,
        guidance_rescale: float = 0.0,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ) -> None:
        for name, share in (
            ("strength", strength),
            ("perturbed_guidance_start", perturbed_guidance_start),
            ("perturbed_guidance_stop", perturbed_guidance_stop),
            ("start", start),
            ("stop", stop),
        ):
            if not 0.0 <= share <= 1.0:
                raise InputError(f"{name} is {share}", where="SoftPAG", expected="0 to 1")
        super().__init__(start, stop, enabled)
        self.heads = _pairs(heads)
        self.strength = strength
        self.perturbed_guidance_scale, self.guidance_scale = perturbed_guidance_scale, guidance_scale
        self.perturbed_guidance_start = perturbed_guidance_start
        self.perturbed_guidance_stop = perturbed_guidance_stop
        self.guidance_rescale = guidance_rescale
        self._hooks: ExitStack | None = None

    def with_heads(self, heads: Sequence[Sequence[int]]) -> SoftPAG:
        """The same guidance in other heads."""
        other = copy.deepcopy(self)
        other.heads = _pairs(heads)
        other.register_to_config(heads=other.heads)
        return other

    def perturbations(self, network: nn.Module) -> Perturbations:
        """What `Guided` does in the network."""
        return {"pred_cond_skip": identity_handlers(network, self.heads, self.strength)}

    def prepare_models(self, denoiser: nn.Module) -> None:
        """Perturb a network until `cleanup_models`, in this thread: what diffusers' own pipelines call."""
        self._count_prepared += 1
        if self._name() == "pred_cond_skip":
            self._hooks = ExitStack()
            self._hooks.enter_context(handling(self.perturbations(denoiser)["pred_cond_skip"]))

    def cleanup_models(self, denoiser: nn.Module) -> None:
        """Undo `prepare_models`."""
        if self._hooks is not None:
            self._hooks.close()
            self._hooks = None

    def prepare_inputs(self, data: dict[str, Any]) -> list[Any]:
        """One state for each prediction that the step needs."""
        return [self._prepare_batch(data, int(name == "pred_uncond"), name) for name in self._names()]

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict[str, Any]) -> list[Any]:
        """The same for diffusers' modular pipelines."""
        return [
            self._prepare_batch_from_block_state(input_fields, data, int(name == "pred_uncond"), name)
            for name in self._names()
        ]

    def forward(
        self, pred_cond: Tensor, pred_uncond: Tensor | None = None, pred_cond_skip: Tensor | None = None
    ) -> GuiderOutput:
        """Join the predictions of a step."""
        pred = pred_cond
        if pred_uncond is not None:
            pred = pred_uncond + self.guidance_scale * (pred_cond - pred_uncond)
        if pred_cond_skip is not None:
            pred = pred + self.perturbed_guidance_scale * (pred_cond - pred_cond_skip)
        if self.guidance_rescale > 0.0:
            pred = rescale_noise_cfg(pred, pred_cond, self.guidance_rescale)
        return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)

    @property
    def is_conditional(self) -> bool:
        """Whether the prediction that was prepared last has the condition."""
        return self._name() != "pred_uncond"

    @property
    def num_conditions(self) -> int:
        """Predictions that the step needs."""
        return len(self._names())

    def _name(self) -> str | None:
        """Of the prediction that was prepared last."""
        names = self._names()
        return names[self._count_prepared - 1] if 0 < self._count_prepared <= len(names) else None

    def _names(self) -> list[str]:
        names = ["pred_cond"]
        if not self._enabled:
            return names
        if not math.isclose(self.guidance_scale, 1.0) and self._within(self._start, self._stop):
            names.append("pred_uncond")
        perturbs = self.heads and self.strength > 0.0 and self.perturbed_guidance_scale != 0.0
        if perturbs and self._within(self.perturbed_guidance_start, self.perturbed_guidance_stop):
            names.append("pred_cond_skip")
        return names

    def _within(self, start: float, stop: float) -> bool:
        steps = self._num_inference_steps
        return steps is None or int(start * steps) <= self._step < int(stop * steps)


def _pairs(heads: Sequence[Sequence[int]]) -> tuple[Head, ...]:
    for pair in heads:
        if len(pair) != 2 or min(pair) < 0:
            raise InputError(f"{list(pair)} is no head", where="SoftPAG", expected="(block, head) from 0 up")
    return tuple(Head(*pair) for pair in heads)
