"""Fetch and Push-T behind the same protocol."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from polydit.core.errors import InputError, MissingExtraError, PolyditError
from polydit.robopolicy.envs import make_env, tasks
from polydit.robopolicy.envs.experts import expert_tasks, make_expert
from polydit.robopolicy.envs.protocol import Env, Expert
from polydit.robopolicy.envs.rendering import RenderConfig, choose_platform

ALL = [(name, task) for name in ("fetch", "pusht") for task in tasks(name)]
STATE_SIZES = {"FetchReach-v4": 13, "push-t": 5, "push-t-pixels": 2}


@pytest.mark.parametrize(("name", "task"), ALL)
def test_equal_seeds_give_equal_episodes(name: str, task: str) -> None:
    def states(env: Env, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        seen = [env.reset(seed)["observation.state"]]
        for _ in range(5):
            action = rng.uniform(env.action_low, env.action_high)
            seen.append(env.step(action).observation["observation.state"])
        return np.stack(seen)

    with make_env(name, task) as env, make_env(name, task) as fresh:
        assert isinstance(env, Env)
        first = states(env, 3)
        assert first.dtype == np.float32 and first.shape[1] == STATE_SIZES.get(task, 28)
        assert not np.array_equal(states(env, 4)[0], first[0])
        assert np.array_equal(states(env, 3), first)
        assert np.array_equal(states(fresh, 3), first)


@pytest.mark.parametrize(("name", "task"), [("fetch", "FetchPush-v4"), ("pusht", "push-t")])
def test_the_guard_is_the_same_everywhere(name: str, task: str) -> None:
    with make_env(name, task) as env:
        seen = []
        for action in (env.action_high * 50, env.action_high):
            env.reset(0)
            seen.append(env.step(action).observation["observation.state"])
        assert np.array_equal(*seen)
        with pytest.raises(PolyditError, match="output 0 of the policy is nan"):
            env.step(env.action_low * np.nan)
        for _ in range(env.max_steps - 1):
            step = env.step(env.action_high)
        assert step.truncated
        with pytest.raises(PolyditError, match=f"ended after {env.max_steps} steps"):
            env.step(env.action_high)


def test_the_controller_reaches_every_goal() -> None:
    expert = make_expert("fetch", "FetchReach-v4")
    assert isinstance(expert, Expert)
    with make_env("fetch", "FetchReach-v4") as env:
        assert env.fps == 25.0
        for seed in range(10):
            observation, success = env.reset(seed), False
            for _ in range(10):
                step = env.step(expert(observation))
                observation, success = step.observation, step.success
            assert success, f"seed {seed}"


def test_a_block_on_its_outline_is_success() -> None:
    with make_env("pusht", "push-t") as env:
        env.reset(0)
        assert not env.step(np.array([256.0, 256.0])).success
        field = env._gym  # type: ignore[attr-defined]
        away = np.array([20.0, 20.0])
        field.agent.position, field.agent.velocity = away.tolist(), (0, 0)
        field.block.velocity, field.block.angular_velocity = (0, 0), 0
        field.block.angle = float(field.goal_pose[2])  # first: it turns about the centre of mass
        field.block.position = field.goal_pose[:2].tolist()
        step = env.step(away)
        assert step.success and step.reward == 1.0
        block = step.observation["observation.state"][2:]
        assert np.allclose(np.asarray(block), field.goal_pose, atol=2.0)  # type: ignore[arg-type]


def test_push_t_draws_itself_without_a_screen() -> None:
    with make_env("pusht", "push-t-pixels", render=RenderConfig(height=96, width=96, view=128)) as env:
        first = np.asarray(env.reset(1)["observation.images.top"])
        assert first.shape == (96, 96, 3) and first.dtype == np.uint8
        moved = np.asarray(env.step(np.array([400.0, 60.0])).observation["observation.images.top"])
        # The pusher moved; nothing is drawn where it shall go.
        assert 0 < (first != moved).any(axis=2).mean() < 0.1
        assert (moved[10, 72:78] == moved[10, 70]).all()
        assert env.render().shape == (128, 128, 3)


def test_fetch_shows_the_goal() -> None:
    try:
        choose_platform()
    except PolyditError as error:
        pytest.skip(str(error))
    with make_env("fetch", "FetchReach-v4", render=RenderConfig()) as env:
        pictures = [
            np.asarray(env.reset(seed)["observation.images.external_camera_0"], int) for seed in (0, 1)
        ]
        red = [(p[..., 0] > 150) & (p[..., 1] < 80) & (p[..., 2] < 80) for p in pictures]
        assert all(mask.any() for mask in red) and (red[0] != red[1]).any()


def test_only_some_tasks_have_an_expert() -> None:
    assert expert_tasks("pusht") == () and expert_tasks("fetch") == ("FetchReach-v4",)
    assert expert_tasks("metaworld") == tasks("metaworld")
    with pytest.raises(InputError, match="'FetchPush-v4' has no scripted expert; expected FetchReach-v4"):
        make_expert("fetch", "FetchPush-v4")
    with pytest.raises(InputError, match="'push-t' has no scripted expert; expected metaworld's tasks"):
        make_expert("pusht", "push-t")
    with pytest.raises(InputError, match="no task"):
        make_expert("metaworld", "juggle-v3")


@pytest.mark.parametrize(
    ("name", "task", "module"),
    [("fetch", "FetchReach-v4", "gymnasium_robotics"), ("pusht", "push-t", "gym_pusht")],
)
def test_what_is_missing_is_named_with_the_command(
    name: str, task: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf'{module}.*pip install "polydit-robopolicy\[{name}\]"'):
        make_env(name, task)


def test_a_new_pymunk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import pymunk

    monkeypatch.delattr(pymunk.Space, "add_collision_handler")  # as in version 7
    with pytest.raises(MissingExtraError, match='pip install "pymunk<7"'):
        make_env("pusht", "push-t")
