"""Caches by the names that an option `--cache` takes: each is one line over a forecaster, a site and a policy.

>>> cache = cache_named("newton(every=4)", num_steps=50, num_blocks=12)
>>> with cached(network, "taylorseer(every=4,order=3)", 50):
...     x = denoise(predict, x, scheduler)

Importing this module imports no torch: a command line lists the names and checks their options before any work.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, get_args

from polydit.core.errors import InputError
from polydit.core.sampling import cache as c  # its names are imported when they are first used
from polydit.core.sampling.cache.clock import Coordinate
from polydit.core.sampling.cache.report import CacheReport, CacheWarning

if TYPE_CHECKING:
    from torch import nn

Option = int | float | str
AUTO, NONE = "auto", "none"
CACHE_KEY = "cache"  # of model_index.json: the setting that a checkpoint suggests, for which "auto" stands


@dataclass(frozen=True, slots=True)
class RunSize:
    """What shares are taken of.

    Args:
        num_steps: Of the run.
        count_blocks: Of the network; asked only by the caches that need it.
    """

    num_steps: int
    count_blocks: Callable[[], int]

    def blocks(self, share: float) -> int:
        """The number nearest to a share of the blocks, at least 1."""
        return max(1, round(_checked(share) * self.count_blocks()))

    def step(self, share: float) -> int:
        """The step nearest to a share of the run."""
        return round(_checked(share) * self.num_steps)


# What the user may set are the arguments after the star; their defaults are those of `--cache NAME`.


def _none(size: RunSize) -> c.Cache | None:
    """Every step is computed."""
    return None


def _newton(
    size: RunSize,
    *,
    every: int = 3,
    order: int = 2,
    warm_up: int = 2,
    cool_down: int = 0,
    first: int = 1,
    time: Coordinate = "step",
) -> c.Cache:
    """What all blocks but the first add, by the polynomial through the last values."""
    policy = c.Interval(every=every, warm_up=warm_up, cool_down=cool_down)
    return c.Cache(c.Newton(order, time), c.BlockRange(first=first), policy)


def _output(
    size: RunSize,
    *,
    every: int = 2,
    order: int = 1,
    warm_up: int = 2,
    cool_down: int = 0,
    time: Coordinate = "step",
    full: str = "",
) -> c.Cache:
    """What the whole network gives, by the polynomial through the last values: a forecast step costs nothing.

    A table such as full=0+1+4+9/12, the computed ones of 12 steps, takes the place of every, warm_up and cool_down.
    """
    policy: c.Policy = c.Interval(every=every, warm_up=warm_up, cool_down=cool_down)
    if full:
        steps, _, number = full.partition("/")
        if not number.isdigit():
            raise InputError(f"full is {full!r}", where="cache output", expected="such as 0+1+4+9/12")
        policy = _table("output", steps, int(number))
    return c.Cache(c.Newton(order, time), c.Output(), policy)


def _taylorseer(
    size: RunSize, *, every: int = 3, order: int = 2, warm_up: int = 2, time: Coordinate = "step"
) -> c.Cache:
    """Liu et al. 2025: what attention and feed-forward of every block give, by a Taylor series."""
    return c.Cache(c.Taylor(order, time), c.Modules(), c.Interval(every=every, warm_up=warm_up))


def _cg_taylor(
    size: RunSize, *, threshold: float = 0.03, order: int = 1, warm_up: int = 5, cool_down: int = 1
) -> c.Cache:
    """2508.02240: what the last block gives, where the first block's output is forecast well enough."""
    series = c.Taylor(order)
    gate = c.FirstBlock(
        threshold=threshold, forecaster=series, residual=False, warm_up=warm_up, cool_down=cool_down
    )
    return c.Cache(series, c.BlockRange(first=1, residual=False), gate)


def _fbcache(size: RunSize, *, threshold: float = 0.08, warm_up: int = 1, cool_down: int = 0) -> c.Cache:
    """First-block cache: what the others added last, where the first block adds nearly what it added then."""
    gate = c.FirstBlock(threshold=threshold, warm_up=warm_up, cool_down=cool_down)
    return c.Cache(c.Reuse(), c.BlockRange(first=1), gate)


def _delta_dit(
    size: RunSize, *, every: int = 2, share: float = 0.5, boundary: float = 0.5, warm_up: int = 1
) -> c.Cache:
    """Chen et al. 2024: what a share of the blocks added last: the last ones in early steps, the first ones later."""
    site = c.MovingRange(blocks=size.blocks(share), boundary=size.step(boundary))
    return c.Cache(c.Reuse(), site, c.Interval(every=every, warm_up=warm_up))


def _ddt(size: RunSize, *, full: str = "", of: int = 0, share: float = 0.75) -> c.Cache:
    """Wang et al. 2025: what the first blocks give, computed at the steps of a table such as full=0+4+9,of=12."""
    if not full or not of:
        raise InputError(
            "ddt needs a schedule table",
            where="cache",
            expected="the computed steps and the number of all steps, such as ddt(full=0+4+9,of=12)",
            hint="polydit share finds the best",
        )
    site = c.BlockRange(first=0, stop=size.blocks(share), residual=False)
    return c.Cache(c.Reuse(), site, _table("ddt", full, of))


def _table(name: str, full: str, of: int) -> c.Table:
    """The computed steps that an option lists."""
    if not re.fullmatch(r"\d+(\+\d+)*", full):
        raise InputError(
            f"full is {full!r}", where=f"cache {name}", expected="numbers of steps, such as 0+4+9"
        )
    return c.Table.of_steps(map(int, full.split("+")), of)


def _harmonica(size: RunSize, *, table: str = "") -> c.Cache:
    """Huang et al. 2025: what attention and feed-forward give, computed where a file's table of (step, module) says."""
    if not table:
        raise InputError(
            "harmonica needs a route table",
            where="cache",
            expected="a file of it, such as harmonica(table=routes.json)",
            hint="polydit route makes one",
        )
    routes = c.RouteTable.read(table)
    return c.Cache(c.Reuse(), c.RoutedModules(table=routes), c.Table(routes.full))


CACHES: Mapping[str, Callable[..., c.Cache | None]] = {
    NONE: _none,
    "newton": _newton,
    "output": _output,
    "taylorseer": _taylorseer,
    "cg-taylor": _cg_taylor,
    "fbcache": _fbcache,
    "delta-dit": _delta_dit,
    "ddt": _ddt,
    "harmonica": _harmonica,
}
NEED_A_TABLE = ("ddt", "harmonica")  # which `polydit share` and `polydit route` find


@dataclass(frozen=True, slots=True)
class CacheSetting:
    """A name of `CACHES` with its options; the text of it names all of them, so that it repeats a run.

    Args:
        name: The name.
        options: Those that are not at their default.
    """

    name: str
    options: Mapping[str, Option] = field(default_factory=dict)

    @classmethod
    @lru_cache(maxsize=64)  # a robot's policy asks for every chunk of actions
    def parse(cls, text: str) -> CacheSetting:
        """From `name` or `name(option=value,...)`.

        Raises:
            InputError: An unknown name or option, or a value of another type; the message lists what there is.
        """
        found = re.fullmatch(r"\s*([\w-]+)\s*(?:\((.*)\))?\s*", text)
        if found is None or found[1] not in CACHES:
            raise InputError(
                f"no cache is called {text!r}",
                where="cache",
                expected=f"{', '.join(CACHES)}, with options as in newton(every=4)",
            )
        name, inside = found[1], (found[2] or "").strip()
        defaults, options = _defaults(name), {}
        for pair in inside.split(",") if inside else ():
            key, _, value = (part.strip() for part in pair.partition("="))
            if key not in defaults:
                has = ", ".join(f"{option}={default}" for option, default in defaults.items()) or "none"
                raise InputError(
                    f"{name} has no option {key!r}", where="cache", expected=f"options of it: {has}"
                )
            options[key] = _typed(value, defaults[key], f"{key} of cache {name}")
        return cls(name, options)

    def __str__(self) -> str:
        options = {**_defaults(self.name), **self.options}
        inside = ",".join(f"{key}={value}" for key, value in options.items() if value != "")
        return f"{self.name}({inside})" if inside else self.name

    def build(self, num_steps: int, count_blocks: Callable[[], int]) -> c.Cache | None:
        """The cache for runs of so many steps; None = every step is computed.

        Raises:
            InputError: A value out of its range, or a table of another number of steps.

        Warns:
            CacheWarning: So few steps leave nothing to skip.
        """
        cache = CACHES[self.name](RunSize(num_steps, count_blocks), **self.options)
        if cache is not None and all(full is True for full in cache.policy.plan(num_steps)):
            warnings.warn(
                f"{self} skips nothing in {num_steps} steps: every step is computed",
                CacheWarning,
                stacklevel=2,
            )
            return None
        return cache


def cache_named(name: str, num_steps: int, num_blocks: int) -> c.Cache | None:
    """The cache of a setting such as "newton" or "newton(every=4)"; see `CacheSetting`."""
    return CacheSetting.parse(name).build(num_steps, lambda: num_blocks)


def cache_for(network: nn.Module, setting: str | c.Cache | None, num_steps: int) -> c.Cache | None:
    """The cache that serves a network in runs of so many steps; None = every step is computed.

    Args:
        network: Ours or one of diffusers.
        setting: As `cache_named` takes it, or a cache; None = none.
        num_steps: Of each run.

    Raises:
        InputError: There is no such cache, or it cannot serve this network or so many steps.
    """
    cache = _built(network, setting, num_steps)
    if cache is not None:
        cache.run(network, c.Clock.flow([1.0 - step / num_steps for step in range(num_steps)]))
    return cache


def _built(network: nn.Module, setting: str | c.Cache | None, num_steps: int) -> c.Cache | None:
    """The setting as a cache; whether that serves the network, its run says."""
    if not isinstance(setting, str):
        return setting
    return CacheSetting.parse(setting).build(num_steps, lambda: len(c.find_blocks(network)))


@contextmanager
def cached(
    network: nn.Module,
    setting: str | c.Cache | None,
    clock: c.Clock | int,
    *,
    calls_per_step: int | Sequence[int] = 1,
    on_report: Callable[[CacheReport], object] | None = None,
) -> Iterator[None]:
    """One sampling run: within the block the network is cached, in this thread, and nothing is left after it.

    Args:
        network: Ours or one of diffusers.
        setting: As in `cache_for`.
        clock: Steps of the run, or just their number.
        calls_per_step: As in `Cache.run`.
        on_report: Told what was done, if the run came to its end and was cached.

    Raises:
        InputError: As `cache_for`, and if the cache needs times that the clock lacks.
    """
    cache = _built(network, setting, clock if isinstance(clock, int) else clock.num_steps)
    if cache is None:
        yield
        return
    with cache.run(network, clock, calls_per_step=calls_per_step) as run:
        yield
    if on_report is not None:
        on_report(run.report)


def _defaults(name: str) -> dict[str, Option]:
    parameters = list(inspect.signature(CACHES[name]).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def _typed(text: str, default: Option, where: str) -> Option:
    """The text as a value of the default's type."""
    if where.startswith("time ") and text not in get_args(Coordinate):
        raise InputError(f"{text!r} is no time", where=where, expected=", ".join(get_args(Coordinate)))
    kinds = {int: "a whole number", float: "a number", str: "a text"}
    try:
        return type(default)(text)
    except ValueError:
        raise InputError(f"{text!r}", where=where, expected=kinds[type(default)]) from None


def _checked(share: float) -> float:
    if not 0.0 <= share <= 1.0:
        raise InputError(f"{share} is no share", where="cache", expected="0 to 1")
    return share
