"""A cache at work: one object owns what one sampling run remembers, and nothing stays on the network.

>>> cache = Cache(Newton(2), BlockRange(first=1), Interval(every=3))
>>> with cache.run(network, 50) as run:
...     x = denoise(predict, x, scheduler)
>>> print(run.report)
30 of 50 steps skipped, forecasts off by 0.8 % at full steps
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache.blocks import find_blocks
from polydit.core.sampling.cache.clock import Clock
from polydit.core.sampling.cache.forecasters import Forecaster, Newton
from polydit.core.sampling.cache.hooks import Forward, Handler, handling, is_handled, within
from polydit.core.sampling.cache.policies import FirstBlock, Interval, Policy
from polydit.core.sampling.cache.report import CacheReport, CacheWarning
from polydit.core.sampling.cache.sites import BlockRange, Site, probe
from polydit.core.sampling.cache.state import Memory, Moment, RunState, relative_error


@dataclass(frozen=True, slots=True)
class Cache:
    """How to save work in a run: a setting without state, good for any number of runs.

    Args:
        forecaster: How values are carried forward.
        site: What is not computed.
        policy: At which steps.
    """

    forecaster: Forecaster = field(default_factory=Newton)
    site: Site = field(default_factory=BlockRange)
    policy: Policy = field(default_factory=Interval)

    def run(
        self, network: nn.Module, clock: Clock | int, *, calls_per_step: int | Sequence[int] = 1
    ) -> CacheRun:
        """A context within which the network is cached, in this thread.

        Args:
            network: Ours or one of diffusers; a part of it has a list of blocks.
            clock: Steps of the run, or just their number. A loop that finishes with a prediction has one more.
            calls_per_step: Network calls of a step, or of every single one, as `Guided.calls_per_step` has them: 2 for
                guidance without a doubled batch, or by a perturbed network. Each has its own memory.

        Raises:
            InputError: The network has no such blocks, or is cached already, the schedule is for another number of
                steps, or the forecaster needs times that the clock lacks.
        """
        return CacheRun(
            self, network, Clock(num_steps=clock) if isinstance(clock, int) else clock, calls_per_step
        )


class CacheRun:
    """One run of a cache; see `Cache.run`."""

    def __init__(
        self, cache: Cache, network: nn.Module, clock: Clock, calls_per_step: int | Sequence[int] = 1
    ) -> None:
        _check_clock(cache, clock)
        self.cache, self.network, self.clock = cache, network, clock
        self._places = _places(clock.num_steps, calls_per_step)
        self._plan = cache.policy.plan(clock.num_steps)
        self._state: RunState | None = None
        self._stack = ExitStack()
        self._calls: list[bool] = []  # for each call so far, whether it was full
        self._shapes: dict[int, torch.Size] = {}
        self._report: CacheReport | None = None
        self._start()  # refuses here what cannot work, not in the middle of a run

    @property
    def report(self) -> CacheReport:
        """What was done so far; after the run, what was done in it."""
        return self._report or self._summary()

    def __enter__(self) -> CacheRun:
        if self._report is not None or self._state is not None:
            raise InputError(
                "a run of a cache serves one sampling", where="cache", hint="Ask for another: cache.run()"
            )
        if is_handled(self.network):
            raise InputError(
                f"{type(self.network).__name__} is in a cached run already",
                where="cache",
                hint="End that run first",
            )
        self._state, handlers = self._start()
        self._stack.enter_context(handling(handlers))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        self._report, self._state = self._summary(), None
        if kind is None and not self._report.skipped_steps:
            warnings.warn(self._nothing_skipped(self._report), CacheWarning, stacklevel=2)

    def _start(self) -> tuple[RunState, dict[nn.Module, Handler]]:
        """A new state, and what is to happen in the network's modules."""
        state = RunState(self.cache.forecaster)
        handlers = self.cache.site.handlers(self.network, state)
        policy = self.cache.policy
        if isinstance(policy, FirstBlock):
            if self.cache.site.first < 1:
                raise InputError(
                    "the first block decides, so it cannot be cached itself",
                    where="cache",
                    expected="a site whose first block is 1 or later",
                )
            gate = _Gate(state, policy)
            block = find_blocks(self.network)[0]
            handlers[block] = probe(state, policy.residual, block, gate)
        own = handlers.get(self.network)
        handlers[self.network] = self._call if own is None else within(self._call, own)
        return state, handlers

    def _call(self, forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One call of the network."""
        state = self._state
        assert state is not None  # handlers are there only within the run
        if len(self._calls) == len(self._places):
            raise InputError(
                f"the network is called for step {self.clock.num_steps + 1} of a run of {self.clock.num_steps}",
                where="cache",
                hint="Give cache.run the number of steps, and calls_per_step if a step has several calls",
            )
        step, call = self._places[len(self._calls)]
        shape = _first_shape(args, kwargs)
        if shape != self._shapes.setdefault(
            call, shape
        ):  # guidance that ended, say: what is kept fits no more
            state.forget(call)
            self._shapes[call] = shape
        full = self._plan[step] if state.knows(call) else True
        state.now = Moment(step, call, self.clock.at(step, self.cache.forecaster.coordinate), full)
        try:
            output = forward(*args, **kwargs)
        except BaseException:
            state.forget(call)  # it may hold half of the call
            raise
        self._calls.append(state.now.full is not False)
        return output

    def _summary(self) -> CacheReport:
        done = zip(self._places, self._calls, strict=False)
        full = {step for (step, _), was_full in done if was_full}
        seen = dict.fromkeys(step for step, _ in self._places[: len(self._calls)])
        return CacheReport(
            full_steps=tuple(step for step in seen if step in full),
            skipped_steps=tuple(step for step in seen if step not in full),
            errors={} if self._state is None else {step: float(e) for step, e in self._state.errors.items()},
        )

    def _nothing_skipped(self, report: CacheReport) -> str:
        if not report.num_steps:
            return (
                f"the cache had no effect: {type(self.network).__name__} was never called within its run "
                "in the thread of the run"
            )
        return (
            f"the cache had no effect: all {report.num_steps} steps were computed under {self.cache.policy}"
        )


class _Gate:
    """Whether the step goes on in full, from what the first block gave."""

    def __init__(self, state: RunState, policy: FirstBlock) -> None:
        self.state, self.policy = state, policy
        self._memories: dict[int, Memory] = {}

    def __call__(self, value: Tensor) -> None:
        now = self.state.now
        if not self.state.knows(now.call):
            self._memories.pop(now.call, None)
        memory = self._memories.setdefault(now.call, Memory(self.policy.forecaster))
        if now.full is None:
            forecast = memory.forecast(now.time)[0]
            assert forecast is not None
            reference = forecast if self.policy.residual else value
            now.full = bool(relative_error(forecast, value, reference) > self.policy.threshold)
        if now.full:
            memory.record(now.time, [value])


def _places(num_steps: int, calls_per_step: int | Sequence[int]) -> list[tuple[int, int]]:
    """For every call of a run, its step and its number within the step."""
    counts = [calls_per_step] * num_steps if isinstance(calls_per_step, int) else list(calls_per_step)
    if len(counts) != num_steps or min(counts) < 1:
        raise InputError(
            f"{calls_per_step} calls per step",
            where="calls_per_step",
            expected=f"1 or more, or as much for each of {num_steps} steps",
        )
    return [(step, call) for step, count in enumerate(counts) for call in range(count)]


def _check_clock(cache: Cache, clock: Clock) -> None:
    asking = [cache.forecaster.coordinate]
    if isinstance(cache.policy, FirstBlock):
        asking.append(cache.policy.forecaster.coordinate)
    for coordinate in asking:
        if not clock.has(coordinate):
            raise InputError(
                f"the forecaster needs the {coordinate} of every step",
                where="cache",
                hint="Give Clock.flow(sigmas) or Clock.diffusion(alphas_cumprod) in place of the number of steps",
            )


def _first_shape(args: Sequence[Any], kwargs: dict[str, Any]) -> torch.Size:
    """Of the first tensor that the network is given."""
    return next(
        (value.shape for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), torch.Size()
    )
