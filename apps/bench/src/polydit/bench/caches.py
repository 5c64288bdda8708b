"""Caches side by side: error against time of every setting, and what the fronts of best settings say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from polydit.bench.cache_contestants import (
    BOTH,
    CACHE_DIT,
    DIFFUSERS,
    EULER,
    OURS,
    SOLVERS,
    Contestant,
    contestants,
    has_cache_dit,
)
from polydit.bench.cache_subjects import Subject, flux_subject, toy_subject
from polydit.bench.measure import interleave, paired_ratio, threads
from polydit.bench.rows import Row
from polydit.core.sampling.calibration import relative_distance

REFERENCE = ("ab3", 300)  # solver and steps of what counts as the true solution


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A setting as measured.

    Args:
        family: Whose it is.
        name: The setting.
        time: Over that of the uncached run.
        moved: Relative distance of the samples to the uncached run's.
        error: Relative distance of the samples to the true solution.
    """

    family: str
    name: str
    time: float
    moved: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All settings on one subject.

    Args:
        subject: It.
        points: The settings.
        error: Relative distance of the uncached run to the true solution.
        rounds: Interleaved runs that the times are medians of.
        seconds: CPU time of the uncached run.
    """

    subject: Subject
    points: tuple[Point, ...]
    error: float
    rounds: int
    seconds: float

    @property
    def how(self) -> str:
        """The circumstances, for rows."""
        return (
            f"{self.subject.about}, fp32, one thread, CPU time over the uncached run's {self.seconds:.2f} s, median of "
            f"{self.rounds} interleaved rounds"
        )

    def of(self, *families: str) -> list[Point]:
        """The points of these families."""
        return [point for point in self.points if point.family in families]

    def named(self, name: str) -> Point:
        """One of our settings."""
        return next(point for point in self.of(OURS) if point.name == name)


def cache_rows(
    which: str,
    *,
    quick: bool,
    out: Path | None = None,
    make: Callable[[Path | None], Subject] | None = None,
) -> Iterator[Row]:
    """What the comparison on one subject tells.

    Args:
        which: "dit" or "flux".
        quick: Fewer settings and rounds.
        out: Folder that keeps the trained network.
        make: Makes another subject, from `out`.
    """
    subject = (make or {"dit": toy_subject, "flux": lambda _: flux_subject()}[which])(out)
    compared = compare(subject, list(contestants(subject, quick=quick)), rounds=1 if quick else 3)
    yield _against(compared, CACHE_DIT, asked=0.8, aim=0.5)
    yield _against(compared, DIFFUSERS)
    for place in ("modules", "after block 1"):
        yield _newton(compared, place)
    yield _at_twice_the_error(compared, asked=which == "dit")


def compare(subject: Subject, chosen: Sequence[Contestant], *, rounds: int) -> Comparison:
    """Run every contestant, and measure."""
    runs = {f"{one.family}: {one.name}": one.run for one in chosen}
    with threads(1):
        uncached = list(subject.sample())
        exact = list(subject.sample(solver_name=REFERENCE[0], num_steps=REFERENCE[1]))
        samples = {name: list(run()) for name, run in runs.items()}
        timings = interleave({"uncached": subject.sample, **runs}, rounds=rounds, warm_up=0)
    base = timings["uncached"]
    points = tuple(
        Point(
            family=one.family,
            name=one.name,
            time=paired_ratio(timings[key].cpu, base.cpu),
            moved=relative_distance(samples[key], uncached),
            error=relative_distance(samples[key], exact),
        )
        for one, key in zip(chosen, runs, strict=True)
    )
    return Comparison(
        subject=subject,
        points=points,
        error=relative_distance(uncached, exact),
        rounds=rounds,
        seconds=base.median_cpu,
    )


def front(points: Iterable[Point]) -> list[Point]:
    """Those that no other beats in both time and distance to the uncached run, the fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.time, point.moved)):
        if math.isfinite(point.moved) and (not best or point.moved < best[-1].moved):
            best.append(point)
    return best


def moved_at(best: Sequence[Point], time: float) -> float | None:
    """What a front reaches in a time, between its points by straight lines in time and log distance.

    Args:
        best: A front.
        time: Over that of the uncached run.

    Returns:
        None if the front has nothing as fast.
    """
    slower = next((index for index, point in enumerate(best) if point.time > time), len(best))
    if slower == 0:
        return None
    left = best[slower - 1]
    if slower == len(best):
        return left.moved
    right = best[slower]
    share = (time - left.time) / (right.time - left.time)
    low, high = (math.log(max(point.moved, 1e-12)) for point in (left, right))
    return math.exp(low + share * (high - low))


def _against(compared: Comparison, rival: str, asked: float | None = None, aim: float | None = None) -> Row:
    """Our front over a rival's, at the times of the rival's points."""
    key = f"caches {compared.subject.name} ours over {rival}"
    what = f"{compared.subject.name}, caches: distance to the uncached run at equal time, our front over {rival}'s"
    if rival == CACHE_DIT and not has_cache_dit():
        return Row(key=key, what=what, value=None, unit="×", asked=asked, aim=aim, how="cache-dit is not installed: "
                   "pip install polydit-bench[cache-dit]")  # fmt: skip
    ours, theirs = front(compared.of(OURS)), front(compared.of(rival))
    ratios = {
        point.name: found / point.moved
        for point in theirs
        if point.time < 1 and (found := moved_at(ours, point.time)) is not None
    }
    told = "; ".join(
        f"{point.time:.2f} × {rival} ({point.name}) {point.moved:.4f}, ours {ratios[point.name] * point.moved:.4f}"
        for point in theirs
        if point.name in ratios
    )
    return Row(
        key=key,
        what=what,
        value=median(ratios.values()) if ratios else None,
        unit="×",
        asked=asked,
        aim=aim,
        how=f"{compared.how}; median over those {len(ratios)} of {rival}'s {len(theirs)} best settings that save time "
        f"and have one of ours as fast; {len(compared.of(OURS))} settings of ours, {len(compared.of(rival))} of "
        f"{rival}'s: {told}",
        details={
            "fronts": _fronts(compared, OURS, rival),
            "points": [asdict(point) for point in compared.points],
        },
    )


def _newton(compared: Comparison, place: str) -> Row:
    """Newton's forecast over Taylor's from the same full steps."""
    newton, taylor = (compared.named(f"{rule} 2, {place}, every 3") for rule in ("Newton", "Taylor"))
    return Row(
        key=f"caches {compared.subject.name} newton over taylor {place}",
        what=f"{compared.subject.name}, {place}: distance to the uncached run, Newton 2 over Taylor 2, interval 3",
        value=newton.moved / taylor.moved,
        unit="×",
        asked=0.8,
        aim=0.5,
        how=f"{compared.subject.about}, three full steps, then every third: {newton.moved:.4f} against "
        f"{taylor.moved:.4f}",
    )


def _at_twice_the_error(compared: Comparison, *, asked: bool) -> Row:
    """The fastest way to samples that are at most twice as far from the true solution as the uncached run's."""
    subject = compared.subject
    bound = 2 * compared.error
    fastest = {
        family: min(near, key=lambda point: point.time)
        for family in (OURS, EULER, SOLVERS, BOTH)
        if (near := [point for point in compared.of(family) if point.error <= bound])
    }
    told = "; ".join(
        f"{family}: {point.name} {point.time:.2f} × at {point.error:.4f}" for family, point in fastest.items()
    )
    solver_name, steps = REFERENCE
    return Row(
        key=f"caches {subject.name} twice the error",
        what=f"{subject.name}: time to 2 × the error of {subject.num_steps}-step Euler, over that of the run",
        value=min((point.time for point in fastest.values()), default=None),
        unit="×",
        asked=0.35 if asked else None,
        aim=0.2 if asked else None,
        how=f"{compared.how}; error to {steps} steps of {solver_name.upper()}, Euler's {compared.error:.4f}; {told}",
        details={"uncached_error": compared.error},
    )


def _fronts(compared: Comparison, *families: str) -> dict[str, list[tuple[float, float]]]:
    return {
        family: [(point.time, point.moved) for point in front(compared.of(family))]
        for family in (*families, EULER)
    }
