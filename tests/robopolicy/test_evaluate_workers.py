"""Many episodes: which ones a plan names, and that processes play them all though one of them dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from polydit.core.cli.options import Shard
from polydit.core.jobs import ManifestRecord, RunFolder, Tally
from polydit.robopolicy.envs.protocol import Env
from polydit.robopolicy.evaluate.choice import PolicyChoice
from polydit.robopolicy.evaluate.plan import EvaluationPlan
from polydit.robopolicy.evaluate.rollout import Policy
from polydit.robopolicy.evaluate.summary import Summary
from polydit.robopolicy.evaluate.workers import Scene, play_episodes

if TYPE_CHECKING:
    from polydit.core.sampling.cache.report import CacheReport
    from polydit.robopolicy.envs.protocol import Observation

TASK, FIRST = "drawer-open-v3", 100_000


# ---------------------------------------------------------------------------------------------------------
# Which episodes.


def test_the_plan_is_every_task_with_every_seed() -> None:
    plan = EvaluationPlan(tasks=("a", "b"), episodes=3, videos=1, traces=2)
    episodes = list(plan)
    assert len(plan) == 6
    assert [episode.id for episode in episodes] == [f"{t}-10000{k}" for t in "ab" for k in range(3)]
    assert [(episode.seed - FIRST, episode.task) for episode in episodes[:3]] == [(k, "a") for k in range(3)]
    assert [episode.filmed for episode in episodes] == [True, False, False] * 2
    assert [episode.traced for episode in episodes] == [True, True, False] * 2


def test_more_episodes_leave_the_earlier_ones_as_they_are() -> None:
    few, many = (EvaluationPlan(tasks=("a", "b", "c"), episodes=n) for n in (2, 5))
    assert {e.index: e for e in few}.items() <= {e.index: e for e in many}.items()


def test_shards_share_the_episodes_and_a_limit_takes_the_first() -> None:
    whole = EvaluationPlan(tasks=("a", "b", "c"), episodes=5)
    parts = [set(replace(whole, shard=Shard(i, 2))) for i in range(2)]
    assert parts[0] | parts[1] == set(whole) and not parts[0] & parts[1]
    limited = replace(whole, limit=4)
    assert len(limited) == 4 and sorted(e.index for e in limited) == [0, 1, 2, 3]


# ---------------------------------------------------------------------------------------------------------
# In processes.


@pytest.fixture(autouse=True)
def importable_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes import this file by its name, however the tests were started."""
    monkeypatch.syspath_prepend(root)


def play(
    out: Path, policy: PolicyChoice, plan: EvaluationPlan, **options: Any
) -> tuple[Tally, list[ManifestRecord]]:
    limit = options.pop("max_steps", None)
    scene = Scene(env="metaworld", policy=policy, max_steps=limit, model="mine")
    with RunFolder.open(out, command="robopolicy evaluate", options={}, provenance={}) as folder:
        tally = play_episodes(plan, scene, folder, **options)
        return tally, list(folder.manifest.records())


def results(records: list[ManifestRecord]) -> dict[str, Any]:
    """What must not depend on time."""
    names = ("task", "success", "steps", "reward")
    return {record["id"]: [record["measures"].get(name) for name in names] for record in records}


def test_one_and_two_workers_give_the_same_results(tmp_path: Path) -> None:
    plan = EvaluationPlan(tasks=(TASK, "reach-v3"), episodes=3, traces=3)
    policy = PolicyChoice(name="random", baseline="random")
    runs = {n: play(tmp_path / str(n), policy, plan, workers=n, max_steps=60) for n in (1, 2)}
    assert runs[1][0] == runs[2][0] == Tally(ok=6)
    assert results(runs[1][1]) == results(runs[2][1])
    traces = [{p.name: p.read_bytes() for p in (tmp_path / n / "items").iterdir()} for n in "12"]
    assert traces[0] == traces[1] and len(traces[0]) == 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubled(PolicyChoice):
    """Does nothing, but at one seed the process dies, or the policy is broken; counts its tries in files."""

    trouble: str
    tries: Path
    deaths: int = 99

    def load(self, on_cache: Callable[[CacheReport], object] | None = None) -> Callable[[Env], Policy]:
        return lambda env: _Troubled(self)


class _Troubled:
    def __init__(self, choice: Troubled) -> None:
        self._choice = choice

    def reset(self, seed: int = 0) -> None:
        self._ill = seed == FIRST + 1
        if self._ill:
            (self._choice.tries / str(os.getpid())).touch()

    def select_action(self, observation: Observation) -> np.ndarray:
        if self._ill and self._choice.trouble == "nan":
            return np.full(4, np.nan)
        if self._ill and len(list(self._choice.tries.iterdir())) <= self._choice.deaths:
            os.kill(os.getpid(), getattr(signal, self._choice.trouble))
        return np.zeros(4)


def troubled(folder: Path, trouble: str, deaths: int = 99) -> Troubled:
    tries = folder / "tries"
    tries.mkdir()
    return Troubled(name="troubled", trouble=trouble, baseline="zero", tries=tries, deaths=deaths)


@pytest.mark.parametrize(("trouble", "deaths"), [("SIGKILL", 1), ("SIGSEGV", 2)])
def test_the_episode_of_a_process_that_died_is_run_again(tmp_path: Path, trouble: str, deaths: int) -> None:
    policy, plan = troubled(tmp_path, trouble, deaths), EvaluationPlan(tasks=(TASK,), episodes=3)
    tally, records = play(tmp_path / "run", policy, plan, max_steps=5, workers=2)
    assert tally == Tally(ok=3)
    assert [record["attempt"] for record in records] == [1, 1, 1]
    assert len(list((tmp_path / "tries").iterdir())) == deaths + 1


def test_an_episode_that_kills_every_process_breaks_off_and_the_others_go_on(tmp_path: Path) -> None:
    plan = EvaluationPlan(tasks=(TASK,), episodes=3)
    tally, records = play(tmp_path / "run", troubled(tmp_path, "SIGSEGV"), plan, max_steps=5)
    assert tally == Tally(ok=2, failed=1)
    assert len(list((tmp_path / "tries").iterdir())) == 3
    (failed,) = [record for record in records if record["status"] == "failed"]
    assert (failed["seed"], failed["error"]["type"]) == (FIRST + 1, "Died")
    assert "3 tries" in failed["error"]["message"] and "SIGSEGV" in failed["error"]["message"]


def test_a_policy_that_plans_nonsense_breaks_its_episode_off(tmp_path: Path) -> None:
    plan = EvaluationPlan(tasks=(TASK,), episodes=3)
    tally, records = play(tmp_path / "run", troubled(tmp_path, "nan"), plan, max_steps=5)
    assert tally == Tally(ok=2, failed=1)
    assert "finite" in records[1]["error"]["message"]
    summary = Summary.of(records)
    assert (summary.all.success.denominator, len(summary.all.broke_off)) == (3, 1)  # it counts, as no success
