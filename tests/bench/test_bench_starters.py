"""The bench of caches on samplers like the starters': what is compared, and what `auto` is said to be."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from polydit.bench.cache_starters import STARTERS, starter_rows
from polydit.bench.rows import Row
from polydit.core.cli.domains import installed_domains
from polydit.core.models import DiT
from polydit.core.sampling.cache import Clock, cached
from polydit.core.sampling.calibration import Sampler, Setting
from polydit.core.sampling.loop import denoise
from polydit.core.sampling.solvers import solver


def small_dit() -> DiT:
    torch.manual_seed(0)
    made = DiT(sample_size=8, width=32, depth=3, heads=4, num_classes=10, learn_sigma=False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.12)
    return made.eval()


@dataclass
class Small:
    """Two items of a DiT with random weights."""

    cache: str = "none"
    network: DiT = field(default_factory=small_dit)
    solvers: tuple[str, ...] = ("euler",)
    calls: list[Setting] = field(default_factory=list)

    @property
    def default(self) -> Setting:
        return Setting(num_steps=12, solver="euler", cache=self.cache)

    def __call__(self, setting: Setting) -> list[Tensor]:
        self.calls.append(setting)
        scheduler = solver(setting.solver)
        scheduler.set_timesteps(setting.num_steps)
        labels = torch.tensor([1, 2])

        def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
            found: Tensor = self.network(x, (timestep / 1000).expand(2), labels).sample
            return found

        noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        with cached(self.network, setting.cache, Clock(num_steps=setting.num_steps)):
            return list(denoise(predict, noise, scheduler))


def rows(cache: str) -> dict[str, Row]:
    small = Small(cache)
    assert isinstance(small, Sampler)
    found = list(starter_rows(quick=True, starters={"small": lambda items: small}))
    assert {setting.num_steps for setting in small.calls} == ({30} if cache == "none" else {30, 12})
    return {row.key.removeprefix("caches starter small "): row for row in found}


def test_newton_stands_beside_taylor_at_both_places() -> None:
    found = rows("none")
    assert list(found) == ["newton over taylor modules", "newton over taylor after block 1", "auto"]
    for row in list(found.values())[:2]:
        newton, taylor = row.details["Newton"], row.details["Taylor"]
        assert row.value == pytest.approx(newton["moved"] / taylor["moved"]) and newton["moved"] > 0
        assert newton["time"] > 0.0 and f"{taylor['moved']:.4f}" in row.how
    assert found["auto"].value == 1.0 and "suggests no cache" in found["auto"].how


def test_a_suggested_cache_is_measured_at_the_checkpoints_steps() -> None:
    row = rows("newton(every=4)")["auto"]
    assert row.value is not None and row.value > 0.0
    assert 0.0 < row.details["moved"] < 1.0 and "12 steps, euler, newton(every=4)" in row.how


def test_every_domain_that_can_be_calibrated_takes_part() -> None:
    known = {
        domain.name
        for domain in installed_domains()
        if domain.calibration and domain.checkpoints[0].is_here()
    }
    assert known <= set(STARTERS)


def test_a_starter_is_taken_as_it_ships() -> None:
    small = STARTERS["molgen"](1)
    assert small.default.num_steps == 50 and len(small(Setting(num_steps=2, solver="euler"))) == 1
