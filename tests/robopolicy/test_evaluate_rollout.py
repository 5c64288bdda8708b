"""Episodes in closed loop: what they record, that they repeat, and that one bad episode breaks off alone."""

from __future__ import annotations

import csv
import io
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from polydit.core.cli.options import Shard
from polydit.core.errors import CheckpointError, InputError, PolyditError
from polydit.core.jobs import ManifestRecord, RunFolder, Tally
from polydit.robopolicy.envs import instruction, make_env
from polydit.robopolicy.envs.protocol import Env
from polydit.robopolicy.evaluate.baselines import make_baseline
from polydit.robopolicy.evaluate.choice import Baseline, PolicyChoice
from polydit.robopolicy.evaluate.fit import check_fit, check_tasks
from polydit.robopolicy.evaluate.plan import EvaluationPlan
from polydit.robopolicy.evaluate.rollout import Policy, Rollout, rollout
from polydit.robopolicy.evaluate.summary import Summary
from polydit.robopolicy.evaluate.videos import VideoWriter, filmstrip
from polydit.robopolicy.evaluate.workers import Scene, play_episodes

if TYPE_CHECKING:
    from polydit.robopolicy.envs.protocol import Observation

TASK, FIRST = "drawer-open-v3", 100_000


@pytest.fixture(scope="module")
def env() -> Iterator[Env]:
    with make_env("metaworld", TASK) as env:
        yield env


def same(one: Rollout, other: Rollout) -> bool:
    return np.array_equal(one.actions, other.actions) and np.array_equal(one.rewards, other.rewards)


# ---------------------------------------------------------------------------------------------------------
# One episode.


def test_the_expert_succeeds_and_the_episode_ends_there(env: Env) -> None:
    played = rollout(env, make_baseline("expert", env), FIRST)
    assert played.success
    assert played.actions.shape == (played.steps, 4) and 30 < played.steps < env.max_steps
    assert np.abs(played.actions).max() <= 1.0  # the script asks for more than that
    assert played.reward == pytest.approx(played.rewards.sum())
    assert 0.0 < played.thinking < played.seconds


@pytest.mark.parametrize("name", ["random", "zero"])
def test_without_skill_there_is_no_success(env: Env, name: Baseline) -> None:
    played = rollout(env, make_baseline(name, env), FIRST)
    assert (played.success, played.steps) == (False, env.max_steps)
    assert bool(np.any(played.actions)) == (name == "random")


@pytest.mark.parametrize("name", ["expert", "random"])
def test_an_episode_depends_on_its_seed_alone(env: Env, name: Baseline) -> None:
    policy = make_baseline(name, env)
    first, other, again = (rollout(env, policy, FIRST + k, max_steps=40) for k in (0, 1, 0))
    assert same(first, again) and not same(first, other)


def test_the_policys_time_is_that_of_its_chunks() -> None:
    played = Rollout(success=True, actions=np.zeros((9, 4)), rewards=np.ones(9), thinking=0.6, seconds=1.0)
    assert played.inference_ms(4) == pytest.approx(200.0)  # three chunks of at most four actions
    assert played.inference_ms() == pytest.approx(600.0 / 9)


def test_the_trace_has_a_row_per_step(env: Env) -> None:
    played = rollout(env, make_baseline("random", env), FIRST, max_steps=7)
    rows = list(csv.DictReader(io.StringIO(played.trace().decode())))
    assert [int(row["step"]) for row in rows] == list(range(7))
    for row, reward, action in zip(rows, played.rewards, played.actions, strict=True):
        assert float(row["reward"]) == pytest.approx(reward, rel=1e-5)
        assert [float(row[f"action.{k}"]) for k in range(4)] == pytest.approx(action, rel=1e-5)


def test_the_watcher_sees_the_start_and_every_step_and_its_time_is_not_counted(env: Env) -> None:
    seen: list[float] = []

    def watch() -> None:
        time.sleep(0.2)
        seen.append(time.perf_counter())

    began = time.perf_counter()
    played = rollout(env, make_baseline("zero", env), FIRST, max_steps=5, watch=watch)
    assert len(seen) == 6
    assert played.seconds < seen[-1] - began - 6 * 0.199


@dataclass
class Fixed:
    """A policy that always wants the same action."""

    action: Any

    def reset(self, seed: int = 0) -> None: ...

    def select_action(self, observation: Observation) -> Any:
        return self.action


@pytest.mark.parametrize("action", [np.array([0.0, np.nan, 0.0, 0.0]), np.array([np.inf, 0.0, 0.0, 0.0])])
def test_what_is_no_action_never_reaches_the_robot(env: Env, action: np.ndarray) -> None:
    with pytest.raises(PolyditError):
        rollout(env, Fixed(action), FIRST)


def test_actions_out_of_range_reach_it_within_the_range(env: Env) -> None:
    wild = rollout(env, Fixed(np.array([5.0, -5.0, 0.5, 0.0])), FIRST, max_steps=3)
    tame = rollout(env, Fixed(np.array([1.0, -1.0, 0.5, 0.0])), FIRST, max_steps=3)
    assert same(wild, tame)


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
# Whether a policy fits.


def chosen(**changes: Any) -> PolicyChoice:
    facts = {
        "fps": 80.0,
        "cameras": (),
        "sizes": {"observation.state": 39, "action": 4},
        "instructions": [instruction("metaworld", TASK)],
    }
    return PolicyChoice(name="mine", facts=facts | changes)


def test_a_policy_that_fits_is_not_refused(env: Env) -> None:
    check_fit(chosen(), env, env.reset(FIRST))
    check_fit(chosen(fps=0.0), env, env.reset(FIRST))  # unknown
    check_fit(PolicyChoice(name="zero", baseline="zero"), env, env.reset(FIRST))
    check_tasks(chosen(), "metaworld", [TASK])
    check_tasks(PolicyChoice(name="expert", baseline="expert"), "metaworld", [TASK])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"sizes": {"observation.state": 20, "action": 4}},
            ["observation.state", "20 numbers", "39 numbers"],
        ),
        ({"sizes": {"observation.state": 39, "action": 7}}, ["action", "7 numbers", "4 numbers"]),
        ({"cameras": ("wrist",)}, ["observation.images.wrist", "nothing in the environment"]),
        ({"fps": 20.0}, ["frames per second", "20 in the policy", "80 in the environment"]),
        ({"fps": 20.0, "cameras": ("wrist",)}, ["frames per second", "wrist"]),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_with_both_sides(
    env: Env, changes: Mapping[str, Any], words: list[str]
) -> None:
    with pytest.raises(CheckpointError) as caught:
        check_fit(chosen(**changes), env, env.reset(FIRST))
    for word in ["mine", f"metaworld {TASK}", *words]:
        assert word in str(caught.value)


def test_a_task_that_it_was_not_trained_on_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"mine.*push-v3.*expected one of"):
        check_tasks(chosen(), "metaworld", [TASK, "push-v3"])
    with pytest.raises(InputError, match=r"no scripted expert of pusht for push-t"):
        check_tasks(PolicyChoice(name="expert", baseline="expert"), "pusht", ["push-t"])


# ---------------------------------------------------------------------------------------------------------
# Many episodes, in processes.


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

    def load(self) -> Callable[[Env], Policy]:
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


# ---------------------------------------------------------------------------------------------------------
# What was found.


def record(task: str, seed: int, success: bool | None, steps: int = 10) -> ManifestRecord:
    measures = {"task": task, "success": success, "steps": steps, "reward": 2.0, "inference_ms": 4.0}
    common: Any = {
        "id": f"{task}-{seed}",
        "index": seed,
        "seed": seed,
        "attempt": 1,
        "inputs": [],
        "outputs": [],
    }
    if success is None:
        error = {"type": "Died", "message": "it died"}
        return common | {"status": "failed", "measures": {"task": task}, "seconds": 1.0, "error": error}
    return common | {"status": "ok", "measures": measures, "seconds": 0.5}


def test_figures_are_counted_by_task() -> None:
    rows = [record("a", 0, True, 20), record("a", 1, True, 40), record("b", 2, False), record("b", 3, None)]
    summary = Summary.of(rows)
    a, b = summary.tasks
    assert (a.success.numerator, a.success.denominator, b.success.numerator, b.success.denominator) == (
        2,
        2,
        0,
        2,
    )
    assert summary.mean_over_tasks == 0.5
    assert (a.steps_to_success, b.steps_to_success) == (30.0, None)
    assert (a.steps_per_second, b.steps_per_second) == (60.0, 20.0)
    figures = summary.to_json()
    assert list(figures["tasks"]) == ["a", "b"]
    assert figures["tasks"]["b"]["broke_off"] == 1
    assert figures["all"]["success"]["interval"] == pytest.approx((0.1500, 0.8500), abs=5e-5)


def test_the_table_has_a_row_per_episode() -> None:
    table = Summary.of([record("a", 0, True), record("b", 3, None)]).csv().decode()
    assert table.splitlines() == [
        "task,seed,success,steps,reward,seconds,inference_ms,error",
        "a,0,1,10,2.0,0.5,4.0,",
        "b,3,0,,,,,it died",
    ]


def test_no_episode_gives_no_figure() -> None:
    summary = Summary.of([])
    assert (summary.tasks, summary.mean_over_tasks) == ((), None)
    assert summary.to_json()["all"]["success"]["value"] is None


# ---------------------------------------------------------------------------------------------------------
# Videos.


def film(frames: int, height: int = 65, width: int = 97) -> bytes:
    with VideoWriter(12.5, "a comment") as video:
        for k in range(frames):
            video.add(np.full((height, width, 3), 20 * k, dtype=np.uint8))
        return video.finish()


@pytest.mark.parametrize("frames", [1, 10])
def test_a_video_holds_every_frame(tmp_path: Path, frames: int) -> None:
    import av

    (tmp_path / "film.mp4").write_bytes(film(frames))
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        shades = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(stream)]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 96, 64)
        assert float(stream.average_rate or 0) == 12.5
        assert container.metadata["comment"] == "a comment"
    assert shades == pytest.approx([20 * k for k in range(frames)], abs=4)


def test_a_filmstrip_shows_the_first_and_the_last_frame(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "film.mp4").write_bytes(film(11))
    with Image.open(io.BytesIO(filmstrip(tmp_path / "film.mp4", frames=3, height=32))) as strip:
        pixels = np.asarray(strip.convert("RGB"))
    assert pixels.shape == (32, 144, 3)
    assert [pixels[:, 48 * k : 48 * k + 48].mean() for k in range(3)] == pytest.approx([0, 100, 200], abs=6)


def test_a_damaged_video_is_named(tmp_path: Path) -> None:
    whole = film(12, 64, 96)
    for name, content in {"torn": whole[:-400], "text": b"no video", "empty": b""}.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.mp4"):
            filmstrip(tmp_path / f"{name}.mp4")


def test_a_video_without_a_frame_is_refused() -> None:
    with pytest.raises(InputError, match="at least one frame"):
        film(0)
