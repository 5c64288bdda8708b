"""What RDT acts on, and how training withholds parts of it.

Shapes: b items, a action slots, s state slots, l language tokens, e language width, k pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

BACKGROUND = 127 / 255  # grey: what a missing picture is filled with


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """Everything but the noisy actions and their time.

    Args:
        state: Numbers of the state's slots.
        state_mask: 1 for slots in use, else 0.
        action_mask: The same for the actions' slots.
        control_frequency: Hz; 0 = unknown.
        language: Precomputed tokens of the instruction.
        language_mask: True for its tokens; None = all.
        images: Pictures in [0, 1], or tokens of an encoder; None for a policy without pictures.
    """

    state: Float[Tensor, "b s"]
    state_mask: Float[Tensor, "b s"]
    action_mask: Float[Tensor, "b a"]
    control_frequency: Float[Tensor, " b"]
    language: Float[Tensor, "b l e"]
    language_mask: Bool[Tensor, "b l"] | None = None
    images: Float[Tensor, "b k 3 y x"] | Float[Tensor, "b n c"] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Withholding:
    """Noise on the state, then each condition is dropped independently of the others (published training code).

    The state becomes its mean, its mask (and the actions') zeros, the control frequency 0, the instruction the empty
    one, and each picture the grey background. So the policy acts on what it is given and leans on no single condition.

    Args:
        probability: Of dropping each condition. Published: 0.1.
        state_snr: Signal-to-noise ratio of the state in dB: noise of std / √(10^(snr/10)). None = no noise.
            Published: 40.
        state_mean: Mean of the normalised states; None = 0.
        state_std: Their standard deviation; None = 1.
        empty_language: Token that embeds the empty instruction; None = zeros.
    """

    probability: float = 0.1
    state_snr: float | None = 40.0
    state_mean: Float[Tensor, " s"] | None = None
    state_std: Float[Tensor, " s"] | None = None
    empty_language: Float[Tensor, " e"] | None = None

    def __call__(self, given: Conditions, generator: torch.Generator) -> Conditions:
        """Draws come from `generator` (CPU), in the order of the sentences above."""
        state = self._noisy(given.state, given.state_mask, generator)
        items = len(state)
        mean = state.new_zeros(()) if self.state_mean is None else self.state_mean.to(state)
        state = torch.where(self._draw(state, generator, items, 1), mean, state)
        keep = ~self._draw(state, generator, items, 1)
        unknown = self._draw(state, generator, items)
        given = replace(
            given,
            state=state,
            state_mask=given.state_mask * keep,
            action_mask=given.action_mask * keep,
            control_frequency=given.control_frequency.masked_fill(unknown, 0.0),
        )
        return self._drop_pictures(self._drop_language(given, generator), generator)

    def _noisy(self, state: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
        if self.state_snr is None:
            return state
        std = torch.ones_like(state) if self.state_std is None else self.state_std.to(state)
        noise = torch.randn(state.shape, generator=generator).to(state)
        return state + noise * std * mask * 10.0 ** (-self.state_snr / 20.0)

    def _drop_language(self, given: Conditions, generator: torch.Generator) -> Conditions:
        language, mask = given.language, given.language_mask
        dropped = self._draw(language, generator, len(language))
        empty = torch.zeros_like(language[0])
        if self.empty_language is not None:
            empty[0] = self.empty_language.to(language)
        first = torch.arange(language.shape[1], device=language.device) == 0
        if mask is None and language.shape[1] > 1:
            mask = torch.ones(language.shape[:2], dtype=torch.bool, device=language.device)
        return replace(
            given,
            language=torch.where(dropped[:, None, None], empty, language),
            language_mask=None if mask is None else torch.where(dropped[:, None], first, mask),
        )

    def _drop_pictures(self, given: Conditions, generator: torch.Generator) -> Conditions:
        if given.images is None:
            return given
        dropped = self._draw(given.images, generator, *given.images.shape[:2])
        return replace(given, images=given.images.masked_fill(dropped[..., None, None, None], BACKGROUND))

    def _draw(self, like: Tensor, generator: torch.Generator, *shape: int) -> Tensor:
        return (torch.rand(shape, generator=generator) < self.probability).to(like.device)
