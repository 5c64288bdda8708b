"""Settings beside one another: what is measured, what lies on the front, and what is chosen."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from polydit.core.errors import InputError
from polydit.core.sampling.cache.report import CacheWarning
from polydit.core.sampling.calibration import Calibration, Measured, Setting, calibrate, relative_distance
from polydit.core.sampling.loop import denoise
from polydit.core.sampling.solvers import solver


@dataclass
class Gaussian:
    """Two items of data of deviation 0.5, whose velocity is known; every network call takes a millisecond."""

    default: Setting = field(default_factory=lambda: Setting(num_steps=16, solver="euler"))
    solvers: tuple[str, ...] = ("euler", "ab2")
    network: nn.Module = field(default_factory=nn.Identity)

    def __call__(self, setting: Setting) -> list[Tensor]:
        scheduler = solver(setting.solver)
        scheduler.set_timesteps(setting.num_steps)

        def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
            time.sleep(0.001)
            sigma = float(timestep) / 1000
            clean = x * (1 - sigma) * 0.25 / ((1 - sigma) ** 2 * 0.25 + sigma**2)  # the posterior mean
            return (x - clean) / sigma

        noise = torch.randn(2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return list(denoise(predict, noise, scheduler))


def test_a_better_solver_lies_on_the_front() -> None:
    settings = [Setting(num_steps=n, solver=name) for n in (8, 16) for name in ("euler", "ab2")]
    runs: list[Setting] = []
    calibration = calibrate(
        Gaussian(), settings, Setting(num_steps=256, solver="ab2"), rounds=2, on_run=runs.append
    )
    measured = calibration.measured
    assert calibration.default.setting == Gaussian().default and not calibration.refused
    assert len(measured) == 4 and len(runs) == 8 and runs[:4] == runs[4:]
    found = {one.setting: one for one in measured}
    euler, better = found[Gaussian().default], found[Setting(num_steps=8, solver="ab2")]
    assert euler.moved == 0.0 and better.moved > 0.0
    assert better.seconds < euler.seconds
    assert found[Setting(num_steps=16, solver="ab2")].error < 0.5 * euler.error
    assert all(one.setting.solver == "ab2" or one.setting.num_steps == 8 for one in calibration.front())


def row(seconds: float, error: float, steps: int = 1) -> Measured:
    return Measured(setting=Setting(num_steps=steps), seconds=seconds, error=error, moved=0.0)


def test_the_front_holds_what_nothing_beats() -> None:
    rows = [row(4.0, 0.1), row(1.0, 0.5), row(2.0, 0.5), row(2.0, 0.2), row(3.0, 0.3), row(5.0, 0.1)]
    calibration = Calibration(tuple(rows), {})
    assert [(one.seconds, one.error) for one in calibration.front()] == [(1.0, 0.5), (2.0, 0.2), (4.0, 0.1)]


def test_the_front_without_caches_leaves_them_out() -> None:
    cached = Measured(setting=Setting(num_steps=1, cache="newton"), seconds=1.0, error=0.1, moved=0.0)
    calibration = Calibration((row(4.0, 0.1), cached, row(2.0, 0.2)), {})
    assert calibration.front() == [cached]
    assert [one.seconds for one in calibration.front(cached=False)] == [2.0, 4.0]
    assert calibration.choose(cached=False).seconds == 4.0 and calibration.choose() == cached


def test_the_fastest_of_those_that_are_good_enough_is_chosen() -> None:
    rows = (row(4.0, 0.1), row(1.0, 0.2), row(2.0, 0.12), row(3.0, 0.05), row(0.1, math.inf))
    calibration = Calibration(rows, {})
    assert calibration.choose().seconds == 2.0
    assert calibration.choose(tolerance=1.0).seconds == 3.0
    assert calibration.choose(tolerance=2.0).seconds == 1.0
    with pytest.raises(InputError, match=r"tolerance of 0\.5"):
        calibration.choose(tolerance=0.5)


def test_a_setting_that_cannot_be_is_left_out_with_its_reason() -> None:
    class Particular(Gaussian):
        def __call__(self, setting: Setting) -> list[Tensor]:
            if setting.cache == "ddt":
                raise InputError("needs a table")
            if setting.cache == "newton":
                warnings.warn("skips nothing", CacheWarning, stacklevel=2)
            return super().__call__(setting)

    caches = ("ddt", "newton", "none")
    settings = [Setting(num_steps=4, solver="ab2", cache=name) for name in caches]
    calibration = calibrate(Particular(), settings, Setting(num_steps=32, solver="ab2"))
    assert [one.setting.num_steps for one in calibration.measured] == [16, 4]
    assert [(setting.cache, reason) for setting, reason in calibration.refused.items()] == [
        ("ddt", "needs a table"),
        ("newton", "skips nothing"),
    ]


def test_distances_are_relative_and_a_bad_sample_is_infinitely_far() -> None:
    exact = [torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])]
    assert relative_distance([torch.tensor([3.0, 5.0]), exact[1]], exact) == pytest.approx(
        math.sqrt(1 / 25 / 2)
    )
    assert relative_distance([torch.tensor([float("nan"), 1.0]), exact[1]], exact) == math.inf


def test_a_reference_that_is_not_finite_is_refused() -> None:
    class Broken(Gaussian):
        def __call__(self, setting: Setting) -> list[Tensor]:
            return [torch.full((2,), float("nan"))]

    with pytest.raises(InputError, match="not finite"):
        calibrate(Broken(), [], Setting(num_steps=2))


def test_a_setting_reads_as_a_person_says_it() -> None:
    assert str(Setting(num_steps=12, solver="ab2", cache="newton")) == "12 steps, ab2, newton"
    assert str(Setting(num_steps=12)) == "12 steps"
