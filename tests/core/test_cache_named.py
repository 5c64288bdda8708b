"""Caches by name: what can be asked for, what is refused, and that a name is the line it stands for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.models import DiT
from polydit.core.sampling.cache import (
    CACHES,
    BlockRange,
    Cache,
    CacheReport,
    CacheSetting,
    CacheTally,
    CacheWarning,
    Clock,
    FirstBlock,
    Interval,
    Modules,
    MovingRange,
    Newton,
    Output,
    Reuse,
    Table,
    Taylor,
    cache_named,
    cached,
)
from polydit.core.sampling.cache.named import cache_for

STEPS, BLOCKS = 12, 4
TABLE = "ddt(full=0+1+4+8,of=12)"
GATE = FirstBlock(threshold=0.03, forecaster=Taylor(1), residual=False, warm_up=5, cool_down=1)
LINES = {
    "newton": Cache(Newton(2), BlockRange(first=1), Interval(every=3, warm_up=2)),
    "newton(every=4,order=1,time=log_snr)": Cache(Newton(1, "log_snr"), BlockRange(), Interval(every=4)),
    "output": Cache(Newton(1), Output(), Interval(every=2, warm_up=2)),
    "output(every=4,order=0,warm_up=1,cool_down=1)": Cache(
        Newton(0), Output(), Interval(every=4, warm_up=1, cool_down=1)
    ),
    "output(order=2,full=0+1+4+8/12)": Cache(Newton(2), Output(), Table.of_steps([0, 1, 4, 8], STEPS)),
    "taylorseer": Cache(Taylor(2), Modules(), Interval(every=3, warm_up=2)),
    "cg-taylor": Cache(Taylor(1), BlockRange(first=1, residual=False), GATE),
    "fbcache": Cache(Reuse(), BlockRange(first=1), FirstBlock(threshold=0.08)),
    "delta-dit": Cache(Reuse(), MovingRange(blocks=2, boundary=6), Interval(every=2, warm_up=1)),
    TABLE: Cache(Reuse(), BlockRange(first=0, stop=3, residual=False), Table.of_steps([0, 1, 4, 8], STEPS)),
}


@pytest.mark.parametrize("name", LINES)
def test_a_name_is_one_line_of_configuration(name: str) -> None:
    assert cache_named(name, STEPS, BLOCKS) == LINES[name]
    spelled_out = str(CacheSetting.parse(name))
    assert str(CacheSetting.parse(spelled_out)) == spelled_out
    assert cache_named(spelled_out, STEPS, BLOCKS) == LINES[name]


def test_every_name_has_a_line() -> None:
    in_a_file = {"harmonica"}  # test_cache_routes has its line
    assert {CacheSetting.parse(name).name for name in LINES} | in_a_file == set(CACHES) - {"none"}
    assert cache_named("none", STEPS, BLOCKS) is None


def test_a_setting_tells_all_its_options() -> None:
    assert str(CacheSetting.parse(" newton( every = 4 ) ")) == (
        "newton(every=4,order=2,warm_up=2,cool_down=0,first=1,time=step)"
    )
    assert str(CacheSetting.parse("fbcache()")) == "fbcache(threshold=0.08,warm_up=1,cool_down=0)"
    assert str(CacheSetting.parse("none")) == "none"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "teacache",
            "no cache is called 'teacache'; expected none, newton, output, taylorseer, cg-taylor, fbcache",
        ),
        ("newton(every=3", "no cache is called"),
        ("newton(interval=3)", "newton has no option 'interval'; expected options of it: every=3, order=2"),
        ("none(every=3)", "none has no option 'every'; expected options of it: none"),
        ("newton(every=often)", "every of cache newton: 'often'; expected a whole number"),
        ("newton(every)", "every of cache newton: ''; expected a whole number"),
        ("newton(time=minutes)", "'minutes' is no time; expected step, sigma, log_snr"),
        ("newton(every=0)", "no step can be full every 0 steps"),
        ("newton(order=-1)", "-1 is no order"),
        ("fbcache(threshold=-0.1)", "-0.1 is no relative error"),
        ("delta-dit(share=1.5)", "1.5 is no share; expected 0 to 1"),
        ("ddt", "ddt needs a schedule table"),
        ("output(full=0+1)", "full is '0+1'; expected such as 0"),
        ("output(full=0+x/12)", "numbers of steps, such as 0"),
        ("output(full=0+1/9)", "table is for 9 steps and the run has 12"),
        ("harmonica", "harmonica needs a route table; expected a file of it"),
        ("harmonica(table=none.json)", "none.json: it cannot be read: No such file"),
        ("ddt(full=0-4,of=12)", "full is '0-4'; expected numbers of steps"),
        ("ddt(full=0+4,of=11)", "the schedule table is for 11 steps and the run has 12"),
        ("ddt(full=0+14,of=12)", "has no step 14"),
    ],
)
def test_what_cannot_be_asked_for_is_named(text: str, problem: str) -> None:
    with pytest.raises(InputError) as refused:
        cache_named(text, STEPS, BLOCKS)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    ("name", "steps"), [("newton", 1), ("delta-dit", 1), ("taylorseer", 2), ("cg-taylor", 6)]
)
def test_too_few_steps_run_without_and_say_so(name: str, steps: int) -> None:
    with pytest.warns(CacheWarning, match=f"skips nothing in {steps} steps: every step is computed"):
        assert cache_named(name, steps, BLOCKS) is None


def test_names_are_checked_without_torch() -> None:
    check = (
        "import sys; from polydit.core.sampling.cache.named import CacheSetting; "
        "CacheSetting.parse('newton(every=4)'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


# ---------------------------------------------------------------------------------------------------------
# On a network.


def network(std: float = 0.12) -> DiT:
    torch.manual_seed(0)
    made = DiT(sample_size=8, width=32, depth=BLOCKS, heads=4, num_classes=10, learn_sigma=False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return made.eval()


def outputs(
    made: DiT, setting: str | Cache | None, on_report: Callable[[CacheReport], object] | None = None
) -> Tensor:
    """Of calls on a smooth path."""
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    labels, sigmas = torch.tensor([3, 5]), torch.linspace(1.0, 0.0, STEPS).tolist()
    with torch.no_grad(), cached(made, setting, Clock.flow(sigmas), on_report=on_report):
        return torch.stack([made(noise * (0.5 + s), torch.full((2,), s), labels).sample for s in sigmas])


@pytest.mark.parametrize("name", LINES)
def test_a_named_cache_serves_one_run_and_reports_it(name: str) -> None:
    made, tally = network(), CacheTally()
    name = {"fbcache": "fbcache(threshold=0.3)", "cg-taylor": "cg-taylor(threshold=0.3)"}.get(name, name)
    plain = outputs(made, None)
    first = outputs(made, name, tally.add)
    assert torch.equal(outputs(made, cache_named(name, STEPS, BLOCKS), tally.add), first)
    assert 0.0 < float((first - plain).norm() / plain.norm()) < 0.3
    assert torch.equal(outputs(made, "none", tally.add), plain)
    record = tally.record()
    assert record["runs"] == 2 and record["steps"] == 2 * STEPS
    assert 0 < record["skipped_steps"] == record["steps"] - record["full_steps"]
    assert str(tally).startswith(f"{record['skipped_steps']} of {2 * STEPS} steps skipped, forecasts off by ")


def test_an_empty_tally_has_no_error() -> None:
    assert CacheTally().record()["estimated_error"] is None
    assert str(CacheTally()) == "0 of 0 steps skipped"


def test_a_cache_that_cannot_serve_the_network_is_refused_before_the_run() -> None:
    with pytest.raises(InputError, match="no blocks from 9 to the end"):
        cache_for(network(), "newton(first=9)", STEPS)
    with pytest.raises(InputError, match=r"a range of 5 blocks; expected 1 to 4"):
        cache_for(network(), Cache(site=MovingRange(blocks=5, boundary=1)), STEPS)
    with pytest.raises(InputError, match="no blocks that could be cached"):
        cache_for(torch.nn.Linear(2, 2), "newton", STEPS)
    assert cache_for(torch.nn.Linear(2, 2), "none", STEPS) is None


def computed_blocks(made: DiT, setting: str) -> list[set[int]]:
    """For each step, the blocks whose feed-forward is computed."""
    seen: list[set[int]] = []
    made.register_forward_pre_hook(lambda *_: seen.append(set()))
    for index, block in enumerate(made.blocks):
        block.mlp.register_forward_hook(lambda *_, index=index: seen[-1].add(index))
    outputs(made, setting)
    return seen


def test_the_moving_range_skips_the_last_blocks_first_and_the_first_ones_later() -> None:
    every = set(range(BLOCKS))
    seen = computed_blocks(network(), "delta-dit(every=3,boundary=0.5)")
    assert [seen[step] for step in (0, 3, 6, 9)] == [every] * 4
    assert [seen[step] for step in (1, 2, 4, 5)] == [{0, 1}] * 4
    assert [seen[step] for step in (7, 8, 10, 11)] == [{2, 3}] * 4


def test_the_change_of_the_range_needs_no_full_step_and_ranges_may_overlap() -> None:
    seen = computed_blocks(network(), "delta-dit(every=6,share=0.75,boundary=0.25)")
    assert [seen[step] for step in (1, 2, 3, 4, 5)] == [{0}, {0}, {3}, {3}, {3}]


def test_a_moving_range_that_never_moves_is_a_block_range() -> None:
    made = network()
    for boundary, fixed in ((STEPS, BlockRange(first=2)), (0, BlockRange(first=0, stop=2))):
        moving = MovingRange(blocks=2, boundary=boundary)
        policy, reports = Interval(every=3), list[CacheReport]()
        pair = [outputs(made, Cache(Newton(1), site, policy), reports.append) for site in (moving, fixed)]
        assert torch.equal(*pair)
        assert reports[0] == reports[1]


def test_log_snr_of_many_steps_has_no_two_alike() -> None:
    clock = Clock.flow(torch.linspace(1.0, 0.0, 5000, dtype=torch.float64).tolist())
    assert all(a < b for a, b in zip(clock.log_snr, clock.log_snr[1:], strict=False))
    few = Clock.flow([1.0, 0.5, 0.0])
    assert few.log_snr == pytest.approx((-13.8135, 0.0, 13.8135), abs=1e-4)


# ---------------------------------------------------------------------------------------------------------
# Compiled blocks.

RANGES = ["newton", "fbcache(threshold=0.3)", "delta-dit"]
without_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, when Inductor is imported
@pytest.mark.parametrize(
    ("backend", "names"),
    [
        pytest.param("inductor", RANGES, marks=without_compiler),
        (
            "eager",
            [*RANGES, "taylorseer"],
        ),  # what is within the blocks splits them into graphs, slow to compile
    ],
)
def test_a_cached_run_with_compiled_blocks_is_the_uncompiled_one(backend: str, names: list[str]) -> None:
    made = network()
    expected = {name: outputs(made, name) for name in [*names, "none"]}
    made.compile_repeated_blocks(backend=backend)
    for name in [*names, "none", *names]:
        torch.testing.assert_close(outputs(made, name), expected[name], rtol=1e-5, atol=1e-5)
    assert all(block._compiled_call_impl is not None for block in made.blocks)
