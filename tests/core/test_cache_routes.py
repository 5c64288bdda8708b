"""Route tables: their files, what a run with one computes, and how a router learns one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.models import DiT
from polydit.core.sampling.cache import (
    Cache,
    CacheReport,
    CacheWarning,
    Interval,
    Modules,
    Reuse,
    RoutedModules,
    RouterTraining,
    RouteTable,
    Table,
    cache_named,
    cached,
    train_router,
)
from polydit.core.sampling.cache.router import straight_through
from polydit.core.sampling.loop import denoise

STEPS, BLOCKS = 5, 3
NAMES = tuple(f"{block}.{name}" for block in range(BLOCKS) for name in ("attn", "mlp"))


def table(computes: Callable[[int, str], bool]) -> RouteTable:
    rows = (tuple(step == 0 or computes(step, name) for name in NAMES) for step in range(STEPS))
    return RouteTable(modules=NAMES, computed=tuple(rows))


CHESS = table(lambda step, name: (step + NAMES.index(name)) % 2 == 0)


def network() -> DiT:
    torch.manual_seed(0)
    made = DiT(sample_size=8, width=32, depth=BLOCKS, heads=4, num_classes=10, learn_sigma=False)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.12)
    return made.eval()


def sample(made: DiT, cache: str | Cache | None = None, on_report: Any = None) -> list[Tensor]:
    """Two items by Euler's steps."""
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([3, 5])

    def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        return made(x, (timestep / 1000).expand(2), labels).sample

    with cached(made, cache, STEPS, on_report=on_report):
        return list(denoise(predict, noise, scheduler))


def named(routes: RouteTable, folder: Path) -> str:
    routes.write(folder / "routes.json")
    return f"harmonica(table={folder / 'routes.json'})"


# ---------------------------------------------------------------------------------------------------------
# A table at work.


def test_a_name_with_a_file_is_one_line_of_configuration(tmp_path: Path) -> None:
    line = Cache(Reuse(), RoutedModules(table=CHESS), Table((True, False, False, False, False)))
    assert cache_named(named(CHESS, tmp_path), STEPS, BLOCKS) == line
    with pytest.raises(InputError, match="is for 5 steps and the run has 6"):
        cache_named(named(CHESS, tmp_path), 6, BLOCKS)


def test_the_table_decides_for_each_module_and_two_runs_are_alike(tmp_path: Path) -> None:
    made, reports, seen = network(), list[CacheReport](), list[set[str]]()
    made.register_forward_pre_hook(lambda *_: seen.append(set()))
    for index, block in enumerate(made.blocks):  # layers that only a computed module reaches
        block.attn.qkv.register_forward_hook(lambda *_, name=f"{index}.attn": seen[-1].add(name))
        next(block.mlp.children()).register_forward_hook(lambda *_, name=f"{index}.mlp": seen[-1].add(name))
    plain = torch.stack(sample(made))
    seen.clear()
    first = torch.stack(sample(made, named(CHESS, tmp_path), reports.append))
    assert seen == [
        {name for name, computed in zip(NAMES, row, strict=True) if computed} for row in CHESS.computed
    ]
    assert float((torch.stack(sample(made, named(CHESS, tmp_path))) - first).abs().max()) == 0.0
    assert torch.equal(torch.stack(sample(made)), plain) and not torch.equal(first, plain)
    assert reports[0].skipped_steps == (1, 2, 3, 4)


def test_a_table_that_computes_everything_is_the_network_itself(tmp_path: Path) -> None:
    made, everything = network(), table(lambda step, name: True)
    plain = torch.stack(sample(made))
    with pytest.warns(CacheWarning, match="skips nothing in 5 steps"):
        assert torch.equal(torch.stack(sample(made, named(everything, tmp_path))), plain)
    # at steps that a policy forecasts, too
    forecast = Cache(Reuse(), RoutedModules(table=everything), Interval(every=2, warm_up=1))
    assert torch.equal(torch.stack(sample(made, forecast)), plain)


def test_rows_of_whole_steps_are_a_schedule_of_modules() -> None:
    made, steps = network(), (True, False, True, False, False)
    rows = Cache(Reuse(), RoutedModules(table=table(lambda step, name: steps[step])), Table(steps))
    assert torch.equal(
        *(torch.stack(sample(made, c)) for c in (rows, Cache(Reuse(), Modules(), Table(steps))))
    )


def test_a_table_of_other_modules_is_refused_before_the_run() -> None:
    fewer = RouteTable(modules=NAMES[:-1], computed=tuple(row[:-1] for row in CHESS.computed))
    more = RouteTable(modules=(*NAMES, "3.attn"), computed=tuple((*row, True) for row in CHESS.computed))
    for routes, problem in ((fewer, "only the network has 2.mlp"), (more, "only the table has 3.attn")):
        with pytest.raises(InputError, match=problem):
            Cache(Reuse(), RoutedModules(table=routes), Table(routes.full)).run(network(), STEPS)


# ---------------------------------------------------------------------------------------------------------
# Files.


def test_a_file_gives_the_table_back(tmp_path: Path) -> None:
    CHESS.write(tmp_path / "routes.json")
    assert RouteTable.read(tmp_path / "routes.json") == CHESS
    assert [path.name for path in tmp_path.iterdir()] == ["routes.json"]
    assert CHESS.num_steps == STEPS and CHESS.reused == pytest.approx(0.4)


GOOD = {"num_steps": 2, "modules": ["0.attn", "0.mlp"], "computed": [[1, 1], [0, 1]]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"num_steps": 2, ', "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("\udcff", "it is no JSON"),
        ("[]", "it is no route table"),
        ({**GOOD, "more": 1}, "it is no route table"),
        ({**GOOD, "modules": ["0.attn", 1]}, "it is no route table"),
        ({**GOOD, "computed": [[1, 1], [0, 2]]}, "it is no route table"),
        ({**GOOD, "computed": [[1, 1], [0, 1.0]]}, "it is no route table"),
        ({**GOOD, "computed": 7}, "it is no route table"),
        ({**GOOD, "num_steps": 3}, "it has 2 rows for 3 steps"),
        ({**GOOD, "computed": [[1, 1], [0]]}, "step 1 has 1 entries; expected one for each of 2 modules"),
        ({**GOOD, "computed": [[0, 1], [1, 1]]}, "the first step has nothing to be reused"),
        ({**GOOD, "modules": ["0.attn", "0.attn"]}, "a module stands in it twice"),
        ({**GOOD, "num_steps": 0, "computed": []}, "no modules or no steps"),
        (" " * (4 << 20) + "{}", "is no route table; expected at most 4194304 bytes"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path, content: Any, problem: str) -> None:
    path = tmp_path / "routes.json"
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as refused:
        RouteTable.read(path)
    assert problem in str(refused.value) and str(path) in str(refused.value)


# ---------------------------------------------------------------------------------------------------------
# Learning.

TRAINING = RouterTraining(iterations=20, beta=1e-12, rate=0.25, proxy_every=10)


def test_the_router_skips_what_is_constant_and_keeps_what_changes() -> None:
    made = network()
    still = made.blocks[1].mlp
    torch.nn.init.zeros_(list(still.children())[-1].weight)  # its bias alone is left
    tables: list[RouteTable] = []
    before = {name: value.clone() for name, value in made.state_dict().items()}
    learnt = train_router(
        made, lambda: sample(made), TRAINING, on_iteration=lambda table, state: tables.append(table)
    )
    assert len(tables) == TRAINING.iterations and tables[-1] == learnt
    assert all(learnt.reuses("1.mlp", step) for step in range(1, STEPS))
    assert not any(learnt.reuses(name, step) for name in NAMES if name != "1.mlp" for step in (1, 2))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in made.parameters())


def test_the_same_seed_learns_the_same_scores() -> None:
    made, tables = network(), []
    training = RouterTraining(iterations=3, beta=1e-9, rate=1.0, seed=4)
    for _ in range(2):
        seen: list[RouteTable] = []
        train_router(
            made,
            lambda: sample(made),
            training,
            on_iteration=lambda table, state, seen=seen: seen.append(table),
        )
        tables.append(seen)
    assert tables[0] == tables[1] and len(set(tables[0])) > 1


def test_more_is_reused_where_computing_costs_more() -> None:
    made = network()
    shares = []
    for beta in (1e-12, 1e3):
        training = RouterTraining(iterations=8, beta=beta, rate=0.8)
        shares.append(train_router(made, lambda: sample(made), training).reused)
    assert shares[0] < 0.5 and shares[1] == pytest.approx((STEPS - 1) / STEPS)


def test_the_threshold_lets_the_gradient_through() -> None:
    scores = torch.tensor([0.05, 0.1, 0.3], requires_grad=True)
    decided = straight_through(scores, 0.1)
    decided.backward(torch.tensor([1.0, 2.0, 3.0]))
    assert decided.tolist() == [0.0, 0.0, 1.0] and scores.grad is not None
    assert scores.grad.tolist() == [1.0, 2.0, 3.0]


def test_what_cannot_be_trained_is_refused() -> None:
    made = network()
    for wrong in ({"iterations": 0}, {"beta": 0.0}, {"rate": -1.0}, {"proxy_every": 0}, {"threshold": 1.0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            RouterTraining(**wrong)
    x, t = torch.randn(1, 4, 8, 8), torch.full((1,), 0.5)
    with torch.no_grad(), pytest.raises(InputError, match="a run of 1 steps has none to reuse"):
        train_router(made, lambda: list(made(x, t, torch.tensor([3])).sample))
    with torch.no_grad(), pytest.raises(InputError, match="the samples are not finite"):
        train_router(made, lambda: [torch.stack([made(x, t, torch.tensor([3])).sample for _ in "ab"]) / 0])
