"""MetaWorld: layouts from seeds, the guard before the simulator, pictures, and life without graphics."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from polydit.core.errors import InputError, MissingExtraError, PolyditError
from polydit.robopolicy.envs import instruction, make_env, tasks
from polydit.robopolicy.envs.metaworld import MetaWorld
from polydit.robopolicy.envs.protocol import Env
from polydit.robopolicy.envs.rendering import RenderConfig, check_rendering, choose_platform

REST = np.zeros(4, np.float32)


def states(env: Env, seed: int, steps: int = 12) -> np.ndarray:
    """What is seen in the beginning and after random actions."""
    rng = np.random.default_rng(seed)
    seen = [env.reset(seed)["observation.state"]]
    seen += [
        env.step(rng.uniform(-1, 1, 4).astype(np.float32)).observation["observation.state"]
        for _ in range(steps)
    ]
    return np.stack(seen)


@pytest.fixture
def drawer() -> Any:
    with make_env("metaworld", "drawer-open-v3") as env:
        yield env


# --- layouts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["reach-v3", "door-open-v3"])
def test_layouts_are_those_of_the_benchmark_class(task: str) -> None:
    """Environments are made without MT1, which takes its time to draw 50 goals that nobody uses."""
    import metaworld

    benchmark = metaworld.MT1(task, seed=42)
    theirs = benchmark.train_classes[task]()
    theirs.set_task(benchmark.train_tasks[0])
    theirs.reset()
    theirs._freeze_rand_vec = False
    theirs.seeded_rand_vec = True
    with make_env("metaworld", task) as env:
        for seed in (7, 100_000):
            theirs.seed(seed)
            first = theirs.reset(seed=seed)[0]
            then = theirs.step(np.full(4, 0.5, np.float32))[0]
            assert np.array_equal(env.reset(seed)["observation.state"], first.astype(np.float32))
            step = env.step(np.full(4, 0.5, np.float32))
            assert np.array_equal(step.observation["observation.state"], then.astype(np.float32))


@pytest.mark.parametrize("task", ["push-v3", "peg-insert-side-v3", "shelf-place-v3"])
def test_equal_seeds_give_equal_episodes(task: str) -> None:
    with make_env("metaworld", task) as env, make_env("metaworld", task) as fresh:
        first = states(env, 3)
        assert not np.array_equal(states(env, 4)[0], first[0])
        assert np.array_equal(states(env, 3), first)
        assert np.array_equal(states(fresh, 3), first)


def test_every_seed_has_its_own_layout(drawer: Env) -> None:
    """Goals drawn with replacement would repeat, and evaluation would meet what was demonstrated."""
    seeds = [*range(30), *range(100_000, 100_030)]
    layouts = {np.asarray(drawer.reset(seed)["observation.state"]).tobytes() for seed in seeds}
    assert len(layouts) == len(seeds)


def test_without_a_seed_they_count_up() -> None:
    with make_env("metaworld", "reach-v3", seed=5) as env:
        unseeded = [env.reset()["observation.state"] for _ in range(2)]
        seeded = [env.reset(seed)["observation.state"] for seed in (5, 6)]
        assert np.array_equal(unseeded, seeded)
        assert np.array_equal(env.reset()["observation.state"], env.reset(7)["observation.state"])
        with pytest.raises(InputError, match="seed -1 is negative"):
            env.reset(-1)


# --- steps ----------------------------------------------------------------------------------------------


def test_it_says_what_it_is(drawer: Env) -> None:
    assert isinstance(drawer, Env)
    assert (drawer.name, drawer.task, drawer.fps, drawer.max_steps) == (
        "metaworld",
        "drawer-open-v3",
        80.0,
        500,
    )
    observation = drawer.reset(0)
    assert observation["task"] == drawer.instruction == "open the drawer"
    state = observation["observation.state"]
    assert isinstance(state, np.ndarray) and state.shape == (39,) and state.dtype == np.float32
    assert set(observation) == {"observation.state", "task"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_moves_nothing(drawer: Env, value: float) -> None:
    drawer.reset(1)
    with pytest.raises(PolyditError, match=rf"output 2 of the policy is {value}"):
        drawer.step(np.array([0, 0, value, np.nan], np.float32))
    after = drawer.step(REST).observation["observation.state"]
    drawer.reset(1)
    assert np.array_equal(after, drawer.step(REST).observation["observation.state"])


def test_out_of_bounds_is_clipped(drawer: Env) -> None:
    assert drawer.action_low.tolist() == [-1] * 4 and drawer.action_high.tolist() == [1] * 4
    seen = []
    for action in ([9.0, -9.0, 1e30, 0.5], [1.0, -1.0, 1.0, 0.5]):
        drawer.reset(2)
        seen.append(drawer.step(np.array(action)).observation["observation.state"])
    assert np.array_equal(*seen)
    with pytest.raises(InputError, match=r"an action of shape \(3,\); expected \(4,\)"):
        drawer.step(np.zeros(3, np.float32))


def test_an_episode_begins_with_reset_and_ends_at_its_limit(drawer: Env) -> None:
    with pytest.raises(PolyditError, match=r"has not begun\. Call reset"):
        drawer.step(REST)
    drawer.reset(0)
    ends = [drawer.step(REST).truncated for _ in range(drawer.max_steps)]
    assert ends.index(True) == drawer.max_steps - 1
    with pytest.raises(PolyditError, match="ended after 500 steps"):
        drawer.step(REST)
    drawer.reset(0)
    assert not drawer.step(REST).truncated


def test_a_simulation_that_breaks_down_is_no_observation() -> None:
    class Breaking(MetaWorld):
        def _state(self, raw: Any) -> Any:
            return np.where(self._gym.curr_path_length < 3, raw, np.nan)

    with Breaking("reach-v3") as env:
        env.reset(0)
        env.step(REST)
        env.step(REST)
        for problem in ("its state is not finite", "the episode ended"):
            with pytest.raises(PolyditError, match=problem):
                env.step(REST)


# --- tasks ----------------------------------------------------------------------------------------------


def test_every_task_has_its_own_words() -> None:
    import metaworld

    assert set(tasks("metaworld")) == set(metaworld.ALL_V3_ENVIRONMENTS) and len(tasks("metaworld")) == 50
    words = [instruction(name, task) for name in ("metaworld", "fetch", "pusht") for task in tasks(name)]
    assert len(set(words)) == len(words) and all(text == text.strip() and text for text in words)


def test_unknown_names_are_refused_with_near_ones() -> None:
    with pytest.raises(InputError, match=r"no task 'drawer-open'; expected .*drawer-open-v3"):
        make_env("metaworld", "drawer-open")
    with pytest.raises(InputError, match="no environment 'mars'; expected metaworld or fetch or pusht"):
        make_env("mars", "drawer-open-v3")


def test_without_metaworld_the_message_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(MissingExtraError, match=r'pip install "polydit-robopolicy\[metaworld\]"'):
        make_env("metaworld", "reach-v3")
    assert len(tasks("metaworld")) == 50


# --- pictures -------------------------------------------------------------------------------------------


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    clean = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def gl() -> str:
    try:
        return choose_platform()
    except PolyditError as error:
        pytest.skip(str(error))


def test_observations_hold_the_cameras_that_were_asked_for(gl: str) -> None:
    config = RenderConfig(cameras=("corner3", "gripperPOV"), height=48, width=64, view=100)
    with make_env("metaworld", "drawer-open-v3", render=config) as env:
        first = env.reset(0)
        corner, gripper = (first[f"observation.images.{name}"] for name in ("corner3", "gripperPOV"))
        for picture in (corner, gripper):
            assert (
                isinstance(picture, np.ndarray) and picture.shape == (48, 64, 3) and picture.dtype == np.uint8
            )
            assert len(np.unique(picture)) > 20
        assert not np.array_equal(corner, gripper)
        kept = corner.copy()
        for _ in range(10):
            step = env.step(np.array([1, 1, -1, 1], np.float32))
        assert np.array_equal(corner, kept), "a picture changed after it was given away"
        assert not np.array_equal(step.observation["observation.images.corner3"], kept)
        assert env.render().shape == (100, 100, 3)


def test_corner_cameras_are_upright(gl: str) -> None:
    """The arm is the only red thing; it stands in the upper half, and hangs in the simulator's own picture."""
    import mujoco

    with make_env("metaworld", "reach-v3", render=RenderConfig(cameras=("corner2",))) as env:
        picture = np.asarray(env.reset(0)["observation.images.corner2"])
        raw = mujoco.Renderer(env._gym.model, 64, 64)  # type: ignore[attr-defined]
        raw.update_scene(env._gym.data, camera="corner2")  # type: ignore[attr-defined]
        theirs = raw.render()
        raw.close()
    # Theirs has shadows and reflections.
    difference = {
        name: np.abs(np.float32(picture) - turned).mean()
        for name, turned in {"upright": theirs[::-1, ::-1], "hanging": theirs}.items()
    }
    assert difference["upright"] < 0.4 * difference["hanging"]


def test_without_asking_there_are_none_and_people_can_still_watch(gl: str, drawer: Env) -> None:
    drawer.reset(0)
    with pytest.raises(InputError, match=r"made without pictures\. Give make_env a RenderConfig"):
        drawer.render()
    with make_env("metaworld", "drawer-open-v3", render=RenderConfig(cameras=(), view=32)) as env:
        assert set(env.reset(0)) == {"observation.state", "task"}
        assert env.render().shape == (32, 32, 3)


def test_wrong_cameras_and_sizes_are_refused(gl: str) -> None:
    with pytest.raises(InputError, match="camera corner is named twice"):
        RenderConfig(cameras=("corner", "corner2", "corner"))
    with pytest.raises(InputError, match="a picture of 0 pixels a side"):
        RenderConfig(height=0)
    with pytest.raises(InputError, match=r"there is no camera front; expected corner3 or .*gripperPOV"):
        make_env("metaworld", "reach-v3", render=RenderConfig(cameras=("front",)))


PICTURE = """
from polydit.robopolicy.envs import make_env
from polydit.robopolicy.envs.rendering import RenderConfig
make_env("metaworld", "reach-v3").close()  # mujoco is there, without graphics
env = make_env("metaworld", "reach-v3", render=RenderConfig())
print(env.reset(0)["observation.images.corner3"].std() > 10)
env.close()
"""


@pytest.mark.parametrize("platform", ["osmesa", "egl"])
def test_a_process_ends_quietly_after_pictures(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", platform)
    try:
        choose_platform()
    except PolyditError as error:
        pytest.skip(str(error))
    done = python(PICTURE, MUJOCO_GL=platform)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


STATE_ONLY = """
import sys
from polydit.core.errors import PolyditError
from polydit.robopolicy.envs import make_env, rendering
for library in rendering._LIBRARIES.values():
    object.__setattr__(library, "file", "absent-" + library.file)
with make_env("metaworld", "reach-v3") as env:
    print(env.step(0 * env.action_low).success if env.reset(0) else None, "OpenGL" in sys.modules)
try:
    make_env("metaworld", "reach-v3", render=rendering.RenderConfig())
except PolyditError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("wanted", "package"),
    [("", "libosmesa6, or: apt-get install libegl1"), ("osmesa", "libosmesa6"), ("egl", "libegl1")],
)
def test_without_graphics_states_work_and_pictures_name_the_package(wanted: str, package: str) -> None:
    done = python(STATE_ONLY, MUJOCO_GL=wanted)
    assert done.stderr == ""
    works, message = done.stdout.splitlines()
    assert works == "False False"
    assert f"Install it with: apt-get install {package}" in message and "States need no graphics" in message


def test_a_screen_is_not_needed_but_its_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(PolyditError, match=r"'glfw'.*expected egl or osmesa"):
        choose_platform()


def test_the_doctor_makes_a_picture(gl: str) -> None:
    finding = check_rendering()
    assert (finding.status, finding.detail) == ("ok", f"by {gl}")
