"""Region-adaptive sampling: only some tokens are computed in a step, the others keep their velocity (Liu et al. 2025).

Shapes: b items, c channels, n tokens (patches, the last axis fastest), a active tokens, h heads, e head width.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.models.dit import DiT
from polydit.core.nn.attention import SelfAttention
from polydit.core.nn.block import DiTBlock
from polydit.core.nn.patchify import unpatchify
from polydit.core.sampling.cache.hooks import Forward, Handler, handling


@dataclass(frozen=True, kw_only=True, slots=True)
class RegionRule:
    """Which tokens a step leaves out.

    A patch's score is the mean over its cells of `metric` of the last move. "released" multiplies it by exp(k · times
    left out) and leaves out the patches at both ends of the order. At the upper end, the only one by default, the
    factor keeps a patch where it is, so the same ones are left out until the end; and step `end` leaves out once more
    what was chosen last. "mended" lets the factor lead away from each end: exp(-k · times) at the upper one,
    exp(+k · times) at the lower one.

    Args:
        sample_ratio: Share of tokens that a step computes.
        start: First step that leaves tokens out; at least 1.
        end: First step after those; None = none.
        reset: Full steps in between (published: 12 and 22 of 30).
        high_ratio: Share of the tokens left out that is taken from the upper end.
        metric: Over the channels of a cell: "std" (unbiased) or "l2norm".
        starvation: k.
        rule: "mended" or "released".
    """

    sample_ratio: float = 0.5
    start: int = 4
    end: int | None = None
    reset: tuple[int, ...] = ()
    high_ratio: float = 1.0
    metric: Literal["std", "l2norm"] = "std"
    starvation: float = 0.1
    rule: Literal["mended", "released"] = "mended"

    def __post_init__(self) -> None:
        wrong = {
            "sample_ratio": (not 0.0 < self.sample_ratio <= 1.0, "above 0, at most 1"),
            "high_ratio": (not 0.0 <= self.high_ratio <= 1.0, "0 to 1"),
            "start": (self.start < 1, "at least 1, since the first step has nothing to reuse"),
        }
        for name, (is_wrong, expected) in wrong.items():
            if is_wrong:
                raise InputError(f"{name} is {getattr(self, name)}", where="RegionRule", expected=expected)

    def left_out(self, step: int, tokens: int) -> tuple[int, int]:
        """How many tokens a step takes from the lower and the upper end."""
        within = self.start <= step and (self.end is None or step < self.end)
        if not within or step in self.reset:
            return 0, 0
        count = int((1 - self.sample_ratio) * tokens)
        low, high = int(count * (1 - self.high_ratio)), int(count * self.high_ratio)
        if self.rule == "released" and low and not high:
            raise InputError(
                "the released rule leaves out every token when none is taken from the upper end",
                where="high_ratio",
                hint='Use rule="mended", or a higher ratio',
            )
        return low, high

    def choose(
        self, score: Float[Tensor, "b n"], times: Int[Tensor, "b n"], low: int, high: int
    ) -> Bool[Tensor, "b n"]:
        """Mark the tokens to leave out.

        Args:
            score: Score of each patch, at least 0.
            times: How often each was left out so far.
            low: Tokens from the lower end.
            high: Tokens from the upper end.
        """
        factor = torch.exp(self.starvation * times.to(score))
        upper = score * factor if self.rule == "released" else score / factor
        chosen = torch.zeros_like(score, dtype=torch.bool)
        chosen.scatter_(1, upper.argsort(dim=1)[:, score.shape[1] - high :], True)
        lower = (score * factor).masked_fill(chosen, math.inf)
        return chosen.scatter(1, lower.argsort(dim=1)[:, :low], True)


@runtime_checkable
class PredictTokens(Protocol):
    """A network that can be asked for some tokens only."""

    def __call__(
        self,
        x: Float[Tensor, "b c *cells"],
        timestep: Float[Tensor, ""],
        active: Int[Tensor, "b a"] | None,
    ) -> Float[Tensor, "b c *cells"]:
        """Velocity at the active tokens, None = all; what stands at the others is not read."""
        ...


class RegionAdaptive:
    """One run of region-adaptive sampling: what `sampling.denoise` calls in place of the network.

    Args:
        network: As `PredictTokens`; `KeptTokens` makes one of a `DiT`.
        sigmas: Noise level of each call and the final one: `scheduler.sigmas` after `set_timesteps`.
        patch: Cells of a token along each axis.
        rule: Which tokens are left out.

    Attributes:
        cached: What was chosen for the next call; None before the first call.
        computed: Tokens computed so far, per item.
        seen: Tokens that full steps would have computed so far, per item.

    Warns:
        UserWarning: No step of the run will leave anything out.
    """

    def __init__(
        self,
        network: PredictTokens,
        sigmas: Float[Tensor, " s"],
        patch: tuple[int, ...],
        rule: RegionRule | None = None,
    ) -> None:
        self.network, self.patch, self.rule = network, patch, rule or RegionRule()
        self.cached: Bool[Tensor, "b n"] | None = None
        self.computed = self.seen = 0
        self._levels = sigmas.tolist()
        self._step = 0
        self._velocity: Tensor | None = None
        self._times: Tensor | None = None
        self._chosen: Tensor | None = None

    def __call__(
        self,
        x: Float[Tensor, "b c *cells"],
        timestep: Float[Tensor, ""],
        previous: Float[Tensor, "b c *cells"] | None = None,
    ) -> Float[Tensor, "b c *cells"]:
        """The whole velocity: that of the active tokens is new, that of the others is the last one's.

        Raises:
            InputError: A second run, a patch that does not divide the sample, or one channel with the metric "std".
        """
        grid = self._grid(x)
        tokens, left_out = math.prod(grid), self._left_out()
        if self._step == 0:
            self._say_if_idle(tokens)
        active = None if left_out is None else (~left_out).nonzero()[:, 1].unflatten(0, (len(left_out), -1))
        velocity = self.network(x, timestep, active)
        if left_out is not None and self._velocity is not None:
            velocity = torch.where(self._spread(left_out, grid), self._velocity, velocity)
        self.seen += tokens
        self.computed += tokens if active is None else active.shape[1]
        self._choose(velocity, grid)
        return velocity

    def _grid(self, x: Tensor) -> tuple[int, ...]:
        if self._step + 1 >= len(self._levels):
            raise InputError("this RegionAdaptive has finished its run", hint="Make one for each run")
        cells = tuple(x.shape[2:])
        if len(cells) != len(self.patch) or any(c % p for c, p in zip(cells, self.patch, strict=True)):
            raise InputError(f"the patch {self.patch} does not divide the cells {cells}", where="patch")
        if self.rule.metric == "std" and x.shape[1] == 1:
            raise InputError(
                "one channel has no standard deviation", where="metric", hint='Use metric="l2norm"'
            )
        return tuple(c // p for c, p in zip(cells, self.patch, strict=True))

    def _left_out(self) -> Bool[Tensor, "b n"] | None:
        """What this call leaves out, equally many tokens of every item; None = nothing."""
        step, rule = self._step, self.rule
        if rule.rule == "released" and step == rule.end and step not in rule.reset:
            return self._chosen
        if self.cached is None or not sum(rule.left_out(step, self.cached.shape[1])):
            return None
        return self.cached

    def _say_if_idle(self, tokens: int) -> None:
        steps = len(self._levels) - 1
        if not any(sum(self.rule.left_out(step, tokens)) for step in range(steps)):
            warnings.warn(
                f"region-adaptive sampling leaves nothing out in {steps} steps of {tokens} tokens: "
                f"start {self.rule.start}, end {self.rule.end}, sample_ratio {self.rule.sample_ratio:g}",
                stacklevel=3,
            )

    def _choose(self, velocity: Tensor, grid: tuple[int, ...]) -> None:
        """What the next call leaves out, by this call's move."""
        move = (self._levels[self._step + 1] - self._levels[self._step]) * velocity.float()
        of_cells = move.std(dim=1) if self.rule.metric == "std" else move.norm(dim=1)
        axes = [size for pair in zip(grid, self.patch, strict=True) for size in pair]
        within = tuple(range(2, 2 + 2 * len(grid), 2))
        score = of_cells.reshape(-1, *axes).mean(dim=within).flatten(1)
        if self._times is None:
            self._times = torch.zeros_like(score, dtype=torch.long)
        self._step += 1
        ends = self.rule.left_out(self._step, score.shape[1])
        self.cached = self.rule.choose(score, self._times, *ends)
        self._times = self._times + self.cached
        if sum(ends):
            self._chosen, self._velocity = self.cached, velocity

    def _spread(self, cached: Bool[Tensor, "b n"], grid: tuple[int, ...]) -> Bool[Tensor, "b 1 *cells"]:
        """From tokens to their cells."""
        mask = cached.unflatten(1, grid)
        for axis, cells in enumerate(self.patch, start=1):
            mask = mask.repeat_interleave(cells, dim=axis)
        return mask[:, None]


class KeptTokens:
    """A `DiT` that computes some tokens only; they attend to all, with the keys and values last computed.

    One object serves one run: it holds every block's keys and values, which the module never does.

    Raises:
        InputError: The network has windows or cross-attention.
    """

    def __init__(self, model: DiT) -> None:
        for index, block in enumerate(model.blocks):
            if model.patterns[index] is not None or block.cross is not None:
                raise InputError(
                    "region-adaptive sampling serves blocks of full self-attention only",
                    where=f"block {index}",
                    hint="Cache by step instead",
                )
        self.model = model
        self._kept: list[tuple[Tensor, Tensor] | None] = [None] * len(model.blocks)

    def __call__(
        self,
        x: Float[Tensor, "b c *cells"],
        timestep: Float[Tensor, " b"],
        class_labels: Int[Tensor, " b"],
        active: Int[Tensor, "i a"] | None = None,
    ) -> Float[Tensor, "b o *cells"]:
        """The network's output, zero at tokens that are not active.

        Args:
            x: Noisy latents.
            timestep: As in `DiT.forward`.
            class_labels: As in `DiT.forward`.
            active: Tokens to compute of each item; None = all. A doubled batch takes them for both halves.
        """
        model = self.model
        modulation = model.modulate(timestep, class_labels)
        tokens = model.patch_embed(x) + model.positions
        if active is not None:
            active = active.repeat(len(x) // len(active), 1)
            tokens = tokens.gather(1, active[..., None].expand(-1, -1, tokens.shape[2]))
        attending: dict[nn.Module, Handler] = {}
        for index, block in enumerate(model.blocks):
            assert isinstance(block, DiTBlock)
            attending[block.attn] = partial(self._attend, index, block.attn, active)
        with handling(attending):
            for index, block in enumerate(model.blocks):
                tokens = block(tokens, modulation.blocks[:, index])
        out = model.final(tokens, modulation.final)
        if active is not None:
            whole = out.new_zeros(len(out), math.prod(model.grid), out.shape[2])
            out = whole.scatter(1, active[..., None].expand_as(out), out)
        sample = unpatchify(out, model.grid, model.patch)
        halved = model.config.learn_sigma and not model.config.return_sigma
        return sample.chunk(2, dim=1)[0] if halved else sample

    def _attend(
        self,
        index: int,
        attn: SelfAttention,
        active: Tensor | None,
        forward: Forward,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Tensor:
        """In place of the attention's own `forward`: the tokens given attend to the kept keys and values of all."""
        q, k, v = attn.queries_keys_values(args[0])
        kept = self._kept[index]
        if active is not None:
            if kept is None or len(kept[0]) != len(k):
                raise InputError("some tokens of a batch were asked for before all of them", where="active")
            at = active[:, None, :, None].expand_as(k)
            k, v = kept[0].scatter(2, at, k), kept[1].scatter(2, at, v)
        self._kept[index] = (k, v)
        return attn.mix(q, k, v)
