"""An episode in closed loop: what it records, that it repeats, and which policies may not begin one."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from polydit.core.errors import CheckpointError, InputError, PolyditError
from polydit.robopolicy.envs import instruction, make_env
from polydit.robopolicy.envs.protocol import Env
from polydit.robopolicy.evaluate.baselines import make_baseline
from polydit.robopolicy.evaluate.choice import Baseline, PolicyChoice
from polydit.robopolicy.evaluate.fit import check_fit, check_tasks
from polydit.robopolicy.evaluate.rollout import Rollout, rollout

if TYPE_CHECKING:
    from polydit.robopolicy.envs.protocol import Observation

TASK, FIRST = "drawer-open-v3", 100_000


@pytest.fixture(scope="module")
def env() -> Iterator[Env]:
    with make_env("metaworld", TASK) as env:
        yield env


def same(one: Rollout, other: Rollout) -> bool:
    return np.array_equal(one.actions, other.actions) and np.array_equal(one.rewards, other.rewards)


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
