"""Caches on the checkpoints that ship with the domains: Newton's forecast beside Taylor's, and what `auto` is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median

from polydit.bench.measure import interleave, paired_ratio, threads
from polydit.bench.rows import Row
from polydit.core.sampling.cache import BlockRange, Cache, Forecaster, Interval, Modules, Newton, Site, Taylor
from polydit.core.sampling.calibration import Sampler, Setting, relative_distance

_PLACES: Mapping[str, Site] = {"modules": Modules(), "after block 1": BlockRange(first=1)}
_RULES: Mapping[str, Forecaster] = {"Newton": Newton(2), "Taylor": Taylor(2)}
_WHEN = Interval(every=3, warm_up=3)
_FEWEST = 30  # steps: with less, two orders have hardly any full steps to differ by

Prepare = Callable[[int], Sampler]  # given a number of items


def molecules(items: int) -> Sampler:
    """molgen's: new noise in every step, the same in all runs."""
    from polydit.molgen.calibration import latents

    return latents(None, items, {})[1]


def molecules_without_new_noise(items: int) -> Sampler:
    """molgen's on the way that its first noise decides, as ADiT is published."""
    from polydit.molgen.calibration import latents

    sampler = latents(None, items, {})[1]
    sampler.pipeline.register_to_config(stochastic=False)
    return sampler


def clouds(items: int) -> Sampler:
    """pointgen's, of 512 points: the network's cost does not depend on them."""
    from polydit.pointgen.calibration import sampler

    return sampler(None, items, {"points": "512"})[1]


def chunks(items: int) -> Sampler:
    """robopolicy's, on its way in MetaWorld."""
    from polydit.robopolicy.calibration import sampler

    return sampler(None, items, {})[1]


def stains(items: int) -> Sampler:
    """vstain's, tiles of procedural tissue."""
    from polydit.vstain.calibration import sampler

    return sampler(None, items, {})[1]


STARTERS: Mapping[str, Prepare] = {
    "molgen": molecules,
    "molgen, first noise alone": molecules_without_new_noise,
    "pointgen": clouds,
    "robopolicy": chunks,
    "vstain": stains,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Run:
    """A setting beside the uncached run of as many steps.

    Args:
        moved: Relative distance of the samples to that run's.
        median: That of the item in the middle: a molecule that becomes another one decides `moved` alone.
        time: CPU time over that run's.
    """

    moved: float
    median: float
    time: float

    def __str__(self) -> str:
        return f"{self.moved:.4f} in {self.time:.2f} × the time"


def starter_rows(*, quick: bool, starters: Mapping[str, Prepare] = STARTERS) -> Iterator[Row]:
    """Of every starter: Newton over Taylor at both sites, and its own cache.

    Args:
        quick: Fewer items and rounds.
        starters: By the domain's name.
    """
    items, rounds = (2, 1) if quick else (8, 3)
    for name, prepare in starters.items():
        sampler = prepare(items)
        steps = max(_FEWEST, sampler.default.num_steps)
        how = f"{items} items, {steps} steps, fp32, one thread, median of {rounds} interleaved rounds of CPU time"
        plain = Setting(num_steps=steps, solver=sampler.default.solver)
        tried = {
            f"{rule}, {place}": replace(plain, cache=Cache(forecaster, site, _WHEN))
            for place, site in _PLACES.items()
            for rule, forecaster in _RULES.items()
        }
        runs = _measured(sampler, plain, tried, rounds)
        for place in _PLACES:
            yield _newton(name, place, runs, how)
        yield _auto(name, sampler, rounds)


def _measured(sampler: Sampler, plain: Setting, tried: Mapping[str, Setting], rounds: int) -> dict[str, _Run]:
    """Every setting against the one without a cache."""
    with threads(1):
        exact = sampler(plain)
        made = {name: sampler(setting) for name, setting in tried.items()}
        contestants = {name: partial(sampler, setting) for name, setting in {"": plain, **tried}.items()}
        timings = interleave(contestants, rounds=rounds, warm_up=0)
    base = timings[""].cpu
    return {
        name: _Run(
            moved=relative_distance(items, exact),
            median=median(relative_distance([one], [other]) for one, other in zip(items, exact, strict=True)),
            time=paired_ratio(timings[name].cpu, base),
        )
        for name, items in made.items()
    }


def _newton(name: str, place: str, runs: Mapping[str, _Run], how: str) -> Row:
    newton, taylor = (runs[f"{rule}, {place}"] for rule in _RULES)
    told = ", ".join(f"{runs[f'{rule}, {place}']} by {rule}" for rule in _RULES)
    return Row(
        key=f"caches starter {name} newton over taylor {place}",
        what=f"{name} starter, {place}: distance to the uncached run, Newton 2 over Taylor 2, interval 3",
        value=newton.moved / taylor.moved,
        unit="×",
        asked=0.8,
        aim=0.5,
        how=f"{how}; three full steps, then every third: {told}; of the median item "
        f"{newton.median / taylor.median:.2f} ×",
        details={"Newton": asdict(newton), "Taylor": asdict(taylor)},
    )


def _auto(name: str, sampler: Sampler, rounds: int) -> Row:
    """What `--cache auto` is: the checkpoint's own cache, or none."""
    own = sampler.default
    row = Row(
        key=f"caches starter {name} auto",
        what=f"{name} starter, --cache auto: speed over the uncached run",
        value=1.0,
        unit="×",
        asked=2.0,
        aim=3.0,
        more_is_better=True,
        how=f"{own.num_steps} steps; its checkpoint suggests no cache, so auto is none",
    )
    if own.cache == "none":
        return row
    run = _measured(sampler, replace(own, cache="none"), {"auto": own}, rounds)["auto"]
    return replace(
        row,
        value=1.0 / run.time,
        how=f"{own}: distance to the uncached run {run.moved:.4f}, median of {rounds} interleaved rounds",
        details={"moved": run.moved},
    )
