"""Demonstrations: what is kept, what is skipped, and that they are the same for any number of processes."""

from __future__ import annotations

import numpy as np
import pytest

from polydit.core.errors import InputError, PolyditError
from polydit.robopolicy.envs import make_env, record
from polydit.robopolicy.envs.experts import make_expert
from polydit.robopolicy.envs.metaworld import MetaWorld
from polydit.robopolicy.envs.protocol import Observation, Step
from polydit.robopolicy.envs.record import DemoRecipe, Skipped, record_dataset, record_episode
from polydit.robopolicy.envs.rendering import RenderConfig, choose_platform
from polydit.robopolicy.episode import Episode

TASK = "drawer-open-v3"


class Watched(MetaWorld):
    """Keeps the actions as they were asked for."""

    def reset(self, seed: int | None = None) -> Observation:
        self.asked: list[np.ndarray] = []
        return super().reset(seed)

    def step(self, action: np.ndarray) -> Step:
        self.asked.append(action)
        return super().step(action)


def rest(observation: Observation) -> np.ndarray:
    return np.zeros(4, np.float32)


def same(one: Episode, other: Episode) -> bool:
    arrays = [(one.state, other.state), (one.action, other.action)]
    arrays += [(one.extra[key], other.extra[key]) for key in one.extra]
    return all(np.array_equal(*pair) for pair in arrays) and (one.index, one.source) == (
        other.index,
        other.source,
    )


def test_the_clean_action_is_kept_and_the_noisy_one_is_done() -> None:
    expert = make_expert("metaworld", TASK)
    with Watched(TASK) as env:
        episode = record_episode(env, expert, 3, noise=0.2)
        noise = np.stack(env.asked) - episode.action
    for state, action in zip(episode.state, episode.action, strict=True):
        assert np.array_equal(np.clip(expert({"observation.state": state}), -1, 1).astype(np.float32), action)
    assert np.abs(episode.action).max() <= 1
    assert abs(noise.std() - 0.2) < 0.03 and abs(noise.mean()) < 0.03
    assert len(np.unique(noise)) > 0.9 * noise.size


def test_without_noise_the_actions_lead_through_the_states() -> None:
    with make_env("metaworld", TASK) as env:
        episode = record_episode(env, make_expert("metaworld", TASK), 0, noise=0.0)
        observation, successes = env.reset(0), []
        for state, action in zip(episode.state, episode.action, strict=True):
            assert np.array_equal(observation["observation.state"], state)
            step = env.step(action)
            observation = step.observation
            successes.append(step.success)
    assert successes == episode.extra["next.success"].tolist()
    assert successes.index(True) == len(episode) - 1


def test_columns_and_their_types() -> None:
    with make_env("metaworld", TASK) as env:
        episode = record_episode(env, make_expert("metaworld", TASK), 1)
        after = record_episode(env, make_expert("metaworld", TASK), 1, stop_after_success=3)
    assert (episode.fps, episode.task, episode.source) == (
        80.0,
        "open the drawer",
        f"metaworld {TASK}, seed 1",
    )
    assert episode.state.dtype == episode.action.dtype == np.float32
    types = {key: (str(rows.dtype), rows.shape) for key, rows in episode.extra.items()}
    rows = (len(episode),)
    assert types == {
        "next.reward": ("float32", rows),
        "next.done": ("bool", rows),
        "next.success": ("bool", rows),
    }
    assert episode.extra["next.done"].tolist() == [False] * (len(episode) - 1) + [True]
    assert len(after) == len(episode) + 3 and np.array_equal(after.state[: len(episode)], episode.state)


def test_an_episode_follows_from_its_seed() -> None:
    expert = make_expert("metaworld", "reach-v3")
    with make_env("metaworld", "reach-v3") as env, make_env("metaworld", "reach-v3") as fresh:
        first = record_episode(env, expert, 5)
        assert not same(record_episode(env, expert, 6), first)
        assert same(record_episode(fresh, expert, 5), first)


def test_failures_are_skipped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An expert that gives up on some layouts, so that some seeds fail."""
    real = make_expert("metaworld", "reach-v3")

    def choosy(observation: Observation) -> np.ndarray:
        goal_x = np.asarray(observation["observation.state"])[-3]
        return np.asarray(real(observation)) if goal_x > 0 else rest(observation)

    monkeypatch.setattr(record, "make_expert", lambda name, task: choosy)
    monkeypatch.setattr(MetaWorld, "max_steps", 100)
    skipped: list[Skipped] = []
    episodes = list(record_dataset("metaworld", ["reach-v3"], 4, on_skip=skipped.append))
    kept = [int(episode.source.split()[-1]) for episode in episodes]
    assert sorted(kept + [each.seed for each in skipped]) == list(range(len(kept) + len(skipped)))
    assert skipped and skipped[0].reason == "no success in 100 steps" and skipped[0].task == "reach-v3"
    assert [episode.index for episode in episodes] == [0, 1, 2, 3] and kept == sorted(kept)
    assert all(episode.extra["next.success"].any() for episode in episodes)
    every = list(record_dataset("metaworld", ["reach-v3"], 3, recipe=DemoRecipe(keep_failures=True)))
    assert [episode.source.split()[-1] for episode in every] == ["0", "1", "2"]


def test_a_task_that_hardly_ever_succeeds_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "make_expert", lambda name, task: rest)
    monkeypatch.setattr(record, "_SPARE_TRIES", 1)
    monkeypatch.setattr(MetaWorld, "max_steps", 20)
    with pytest.raises(
        PolyditError, match=f"{TASK}: the expert succeeded only 0 times in 11 tries; expected 2"
    ):
        list(record_dataset("metaworld", [TASK], 2, recipe=DemoRecipe(noise=0.0)))


def test_a_broken_episode_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = make_expert("metaworld", "reach-v3"), [0]

    def breaking(observation: Observation) -> np.ndarray:
        seen[0] += 1
        return np.asarray(real(observation)) * (np.nan if seen[0] == 3 else 1)

    monkeypatch.setattr(record, "make_expert", lambda name, task: breaking)
    skipped: list[Skipped] = []
    episodes = list(record_dataset("metaworld", ["reach-v3"], 2, on_skip=skipped.append))
    assert [episode.source.split()[-1] for episode in episodes] == ["1", "2"]
    assert [each.seed for each in skipped] == [0] and "output 0 of the policy is nan" in skipped[0].reason


def test_processes_change_nothing() -> None:
    wanted = ("metaworld", ["reach-v3", TASK], 3)
    recipe = DemoRecipe(first_seed=40)
    alone = list(record_dataset(*wanted, recipe=recipe))
    together = list(record_dataset(*wanted, recipe=recipe, workers=2))
    assert [episode.task for episode in alone] == ["reach the goal"] * 3 + ["open the drawer"] * 3
    assert len(alone) == len(together) == 6
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))
    assert alone[0].source.endswith("seed 40")


def test_pictures_are_those_of_the_moment_of_the_action() -> None:
    try:
        choose_platform()
    except PolyditError as error:
        pytest.skip(str(error))
    recipe = DemoRecipe(noise=0.0, render=RenderConfig(cameras=("corner3", "topview"), height=24, width=32))
    (episode,) = record_dataset("metaworld", ["reach-v3"], 1, recipe=recipe)
    assert {name: frames.shape for name, frames in episode.images.items()} == {
        "corner3": (24, 32, 3),
        "topview": (24, 32, 3),
    }
    assert all(len(frames) == len(episode) for frames in episode.images.values())
    with make_env("metaworld", "reach-v3", render=recipe.render) as env:
        observation = env.reset(0)
        for index in range(5):
            for name, frames in episode.images.items():
                assert np.array_equal(observation[f"observation.images.{name}"], frames[index])
            observation = env.step(episode.action[index]).observation


def test_wrong_wishes_are_found_before_the_first_episode() -> None:
    for arguments, message in (
        (("metaworld", ["reach-v3", "reach-v3"], 1), "named twice"),
        (("metaworld", ["reach-v3", "reach"], 1), "no task 'reach'"),
        (("fetch", ["FetchSlide-v4"], 1), "no scripted expert"),
        (("metaworld", ["reach-v3"], 0), "0 episodes"),
    ):
        with pytest.raises(InputError, match=message):
            next(record_dataset(*arguments))
    for numbers in ({"noise": -0.1}, {"noise": float("nan")}, {"first_seed": -1}, {"stop_after_success": -1}):
        with pytest.raises(InputError, match="expected 0 or more"):
            DemoRecipe(**numbers)
