"""Which sampling setting is worth its time, measured on a checkpoint: the error and time of each, and their front.

A cache is judged beside what it competes with: a better solver with fewer steps.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache import Cache
from polydit.core.sampling.cache.report import CacheWarning


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """How to sample.

    Args:
        num_steps: Steps of the solver.
        solver: Its name as the domain has it; "auto" = the checkpoint's own.
        cache: A name of `sampling.cache.named`, or a cache itself; "none" computes every step.
    """

    num_steps: int
    solver: str = "auto"
    cache: str | Cache = "none"

    def __str__(self) -> str:
        words = [f"{self.num_steps} steps"]
        words += [self.solver] if self.solver != "auto" else []
        words += [str(self.cache)] if self.cache != "none" else []
        return ", ".join(words)


@runtime_checkable
class Sampler(Protocol):
    """A checkpoint with chosen items, each of which starts from the same noise whenever they are sampled."""

    @property
    def network(self) -> nn.Module:
        """What a cache is for: it is called in every step, and has the blocks."""
        ...

    @property
    def default(self) -> Setting:
        """What the checkpoint takes unless told."""
        ...

    @property
    def solvers(self) -> Sequence[str]:
        """Solvers that it can be sampled with."""
        ...

    def __call__(self, setting: Setting) -> list[Float[Tensor, " *shape"]]:
        """The items as the network gives them, before anything is rounded or decoded."""
        ...


@runtime_checkable
class OneByOne(Protocol):
    """A `Sampler` that makes its items one after the other, as they are asked for where it is used."""

    def together(self) -> Sampler:
        """The same items in one run."""
        ...


def in_one_run(sampler: Sampler) -> Sampler:
    """All items in one run, for what follows a run step by step; most samplers do so anyway."""
    return sampler.together() if isinstance(sampler, OneByOne) else sampler


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A setting and what it gave.

    Args:
        setting: It.
        seconds: Median time of all items.
        error: Distance to the reference, relative to the reference's own size; root mean square over items.
        moved: Distance to the default setting's samples, in the same way.
    """

    setting: Setting
    seconds: float
    error: float
    moved: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """Settings beside one another.

    Args:
        measured: Each setting once, the checkpoint's default first.
        refused: Settings that cannot be, or whose cache skips nothing, with the reason.
    """

    measured: tuple[Measured, ...]
    refused: Mapping[Setting, str]

    @property
    def default(self) -> Measured:
        """What the checkpoint takes unless told."""
        return self.measured[0]

    def front(self, *, cached: bool = True) -> list[Measured]:
        """Those that no other beats in both time and error, the fastest first; without caches if told."""
        best: list[Measured] = []
        for one in sorted(self.measured, key=lambda one: (one.seconds, one.error)):
            if (cached or one.setting.cache == "none") and (not best or one.error < best[-1].error):
                best.append(one)
        return best

    def choose(self, *, tolerance: float = 1.25, cached: bool = True) -> Measured:
        """The fastest setting whose error is at most `tolerance` times the default's.

        Raises:
            InputError: A tolerance below 1, which the default itself would miss.
        """
        if not tolerance >= 1.0:
            raise InputError(f"a tolerance of {tolerance}", where="tolerance", expected="1 or more")
        enough = [one for one in self.front(cached=cached) if one.error <= tolerance * self.default.error]
        return enough[0] if enough else self.default


def calibrate(
    sampler: Sampler,
    settings: Iterable[Setting],
    reference: Setting,
    *,
    rounds: int = 2,
    on_run: Callable[[Setting], object] | None = None,
) -> Calibration:
    """Sample with each setting and compare; the rounds are interleaved, so that a busy moment meets all settings.

    Args:
        sampler: What is sampled.
        settings: Which settings; the sampler's default is measured besides.
        reference: A setting so fine that its samples count as exact.
        rounds: Runs of each setting whose median is its time.
        on_run: Told each setting after its run.

    Raises:
        InputError: No rounds are asked for, or the reference's samples are not finite.
    """
    if rounds < 1:
        raise InputError(f"{rounds} rounds", where="rounds", expected="1 or more")
    exact = sampler(reference)
    if not all(bool(item.isfinite().all()) for item in exact):
        raise InputError("the reference's samples are not finite", where=str(reference))
    usual = sampler(sampler.default)  # not timed: the first runs warm up
    waiting = list(dict.fromkeys([sampler.default, *settings]))
    seconds: dict[Setting, list[float]] = {setting: [] for setting in waiting}
    refused: dict[Setting, str] = {}
    distances: dict[Setting, tuple[float, float]] = {}
    for _ in range(rounds):
        for setting in waiting:
            if setting in refused:
                continue
            try:
                seconds[setting].append(_timed(sampler, setting, exact, usual, distances))
            except (InputError, CacheWarning) as error:
                refused[setting] = str(error)
            if on_run:
                on_run(setting)
    return Calibration(
        tuple(
            Measured(setting=setting, seconds=statistics.median(times), error=error, moved=moved)
            for setting, times in seconds.items()
            if setting not in refused
            for error, moved in [distances[setting]]
        ),
        refused,
    )


def _timed(
    sampler: Sampler,
    setting: Setting,
    exact: Sequence[Tensor],
    usual: Sequence[Tensor],
    distances: dict[Setting, tuple[float, float]],
) -> float:
    """Seconds of one run, whose distances are noted; a cache that skips nothing is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", CacheWarning)
        start = time.perf_counter()
        samples = sampler(setting)
        seconds = time.perf_counter() - start
    distances[setting] = relative_distance(samples, exact), relative_distance(samples, usual)
    return seconds


def relative_distance(samples: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """√(mean over items of |x - y|² / |y|²) in float64; infinite where a sample is not finite.

    Args:
        samples: Items x.
        exact: As many items y, of the same shapes.
    """
    shares = [
        (x.double() - y.double()).square().sum() / y.double().square().sum().clamp(min=1e-30)
        for x, y in zip(samples, exact, strict=True)
    ]
    found = float(torch.stack(shares).mean().sqrt())
    return found if found == found else float("inf")
