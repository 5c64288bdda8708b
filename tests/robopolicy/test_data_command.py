"""`robopolicy data make`, `inspect` and `import` as a user calls them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from polydit.core.errors import InputError, PolyditError
from polydit.robopolicy.cli import robopolicy
from polydit.robopolicy.data.features import features_of
from polydit.robopolicy.data.make import make_dataset
from polydit.robopolicy.data.pictures import ArrayFrames
from polydit.robopolicy.data.readers import read_dataset
from polydit.robopolicy.data.recipe import MakeRecipe
from polydit.robopolicy.data.writer import LeRobotWriter
from polydit.robopolicy.envs.rendering import choose_platform
from polydit.robopolicy.episode import Episode

Invoke = Callable[..., Result]
Shell = Callable[..., subprocess.CompletedProcess[str]]
TASKS = ("reach-v3", "button-press-topdown-v3")  # short ones
MAKE = ("data", "make", *(word for task in TASKS for word in ("--task", task)), "--episodes", 2)


def write(out: Path, count: int = 3, **settings: Any) -> Path:
    """Some episodes with pictures, in any version."""

    def episode(number: int) -> Episode:
        rng, length = np.random.default_rng(number), 4 + number
        return Episode(
            index=number,
            fps=10.0,
            task="open" if number % 2 else "close",
            state=rng.normal(size=(length, 3)).astype(np.float32),
            action=rng.normal(size=(length, 2)).astype(np.float32),
            images={"top": ArrayFrames(rng.integers(0, 256, (length, 16, 16, 3), dtype=np.uint8))},
        )

    features = features_of(episode(0), pictures="image", action_names=("left", "right"))
    with LeRobotWriter(out, fps=10.0, features=features, robot_type="toy", **settings) as writer:
        for number in range(count):
            writer.add(episode(number))
    return out


def spoil(root: Path, row: int) -> None:
    """An action of the data set becomes not a number."""
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    values = table["action"].to_pylist()
    values[row] = [float("nan"), 0.0]
    place = table.schema.get_field_index("action")
    column = table.schema.field("action")
    pq.write_table(table.set_column(place, column, pa.array(values, type=column.type)), path)


def rows_of(root: Path) -> dict[str, list[Any]]:
    return pq.read_table(root / "data/chunk-000/file-000.parquet").to_pydict()


# ---------------------------------------------------------------------------------------------------------
# make


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "demos"
    make_dataset(out, MakeRecipe(tasks=TASKS, episodes=2))
    return out


def test_the_defaults_are_the_recorders() -> None:
    from polydit.robopolicy.envs.record import DemoRecipe

    ours, theirs = MakeRecipe(tasks=TASKS), DemoRecipe()
    assert (ours.noise, ours.after_success, ours.keep_failures, ours.seed) == (
        theirs.noise, theirs.stop_after_success, theirs.keep_failures, theirs.first_seed,
    )  # fmt: skip


def test_make_writes_what_it_says(invoke: Invoke, tmp_path: Path, made: Path) -> None:
    result = invoke(robopolicy, *MAKE, "--out", "demos", "--json")
    assert result.exit_code == 0, result.output
    *episodes, summary = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["task"], line["seed"]) for line in episodes[:2]] == [("reach-v3", 0), ("reach-v3", 1)]
    assert summary["recorded"] == 4 and summary["kept"] == 0
    dataset = read_dataset(tmp_path / "demos")
    assert len(dataset) == 4 and dataset.problems == ()
    assert (dataset.info.robot_type, dataset.info.fps) == ("metaworld", 80)
    assert [dataset[k].task for k in range(4)] == ["reach the goal"] * 2 + ["press the button from above"] * 2
    assert dataset[0].extra["next.success"].any()
    assert rows_of(tmp_path / "demos") == rows_of(made)
    told = json.loads((tmp_path / "demos/data.json").read_text())
    assert told["recipe"]["tasks"] == list(TASKS) and told["recipe"]["noise"] == 0.2
    assert told["episodes"][2] == {"task": TASKS[1], "seed": 0}
    assert "metaworld" in told["versions"]


def test_make_again_has_nothing_to_do(invoke: Invoke, made: Path) -> None:
    before = (made / "meta/info.json").stat().st_mtime_ns
    (made / ".writing").mkdir()  # as a kill in the last moment leaves it
    again = invoke(robopolicy, *MAKE, "--out", made)
    assert again.exit_code == 0, again.output
    assert "recorded 0 episodes, 4 are of an earlier call" in again.stdout
    assert (made / "meta/info.json").stat().st_mtime_ns == before
    assert not (made / ".writing").exists()
    other = invoke(robopolicy, *MAKE, "--noise", 0, "--out", made)
    assert other.exit_code == 2 and "made with other settings: noise" in other.stderr
    assert "--overwrite" in other.stderr


KILLED = """
import os
from pathlib import Path
from polydit.robopolicy.data.make import make_dataset
from polydit.robopolicy.data.recipe import MakeRecipe
seen = []
def die(entry):
    seen.append(entry)
    if len(seen) == {count}:
        os.kill(os.getpid(), 9)
make_dataset(Path("demos"), MakeRecipe(tasks={tasks}, episodes=2), on_episode=die)
"""


@pytest.mark.parametrize("count", [1, 2])
def test_make_killed_goes_on_to_the_same_data(
    shell: Shell, invoke: Invoke, tmp_path: Path, made: Path, count: int
) -> None:
    """Within a task and between two."""
    (tmp_path / "killed.py").write_text(KILLED.format(count=count, tasks=TASKS))
    assert shell("python killed.py").returncode == -9
    refused = invoke(robopolicy, "data", "inspect", "demos")
    assert refused.exit_code == 2 and "not finished" in refused.stderr
    other = invoke(robopolicy, *MAKE, "--seed", 5, "--out", "demos")
    assert other.exit_code == 2 and "begun with other settings: seed" in other.stderr
    result = invoke(robopolicy, *MAKE, "--out", "demos")
    assert result.exit_code == 0, result.output
    assert f"recorded {4 - count} episodes, {count} are of an earlier call" in result.stdout
    assert rows_of(tmp_path / "demos") == rows_of(made)
    notes = [json.loads((root / "data.json").read_text())["episodes"] for root in (made, tmp_path / "demos")]
    assert notes[0] == notes[1]


def test_make_with_pictures(tmp_path: Path) -> None:
    try:
        choose_platform()
    except PolyditError as error:
        pytest.skip(str(error))
    recipe = MakeRecipe(tasks=("reach-v3",), episodes=1, cameras=("corner3",), image_size=32)
    make_dataset(tmp_path / "demos", recipe)
    dataset = read_dataset(tmp_path / "demos")
    frames = dataset[0].images["corner3"]
    assert dataset.info.features["observation.images.corner3"].dtype == "video"
    assert frames.shape == (32, 32, 3) and len(list(frames)) == len(dataset[0])
    assert frames[0].std() > 10  # there is something to see
    assert dataset.statistics["observation.images.corner3"]["mean"].shape == (3, 1, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--task", "reech-v3"), "reach-v3"),
        ((), "Add --task NAME, or --tasks all"),
        (("--env", "pusht", "--tasks", "all"), "no task of pusht has a scripted expert"),
        (
            ("--task", "reach-v3", "--camera", "top", "--image-size", "33"),
            "33 pixels a side cannot be a video",
        ),
        (("--task", "reach-v3", "--episodes", "0"), "--episodes"),
    ],
)
def test_make_finds_a_wrong_call_at_once(
    invoke: Invoke, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = invoke(robopolicy, "data", "make", *words, "--out", "demos")
    assert result.exit_code == 2 and message in result.stderr
    assert not (tmp_path / "demos").exists()


def test_a_recipe_that_cannot_be() -> None:
    for wrong in ({"tasks": ()}, {"tasks": ("a", "a")}, {"tasks": ("a",), "noise": -1.0}):
        with pytest.raises(InputError):
            MakeRecipe(**wrong)


# ---------------------------------------------------------------------------------------------------------
# inspect


def test_inspect_for_a_person(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "set")
    result = invoke(robopolicy, "data", "inspect", "set", "--decode")
    assert result.exit_code == 0, result.output
    for words in (
        "lerobot v3.0, robot toy, 10 frames per second", "3 episodes, 15 frames (1.5 s), 4 to 6 frames each",
        "observation.images.top  image    [16, 16, 3]", "     2  close", "0 left", "q99",
    ):  # fmt: skip
        assert words in result.stdout
    assert "problems" not in result.stdout


def test_inspect_for_a_program(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "set", version="v2.1")
    found = json.loads(invoke(robopolicy, "data", "inspect", "--json", "set").stdout)
    assert (found["version"], found["episodes"], found["frames"], found["fps"]) == ("lerobot v2.1", 3, 15, 10)
    assert found["tasks"] == {"close": 2, "open": 1} and found["problems"] == []
    assert found["features"]["action"] == {"dtype": "float32", "shape": [2], "names": ["left", "right"]}
    assert len(found["statistics"]["action"]["q10"]) == 2
    some = json.loads(invoke(robopolicy, "data", "inspect", "--json", "set", "--limit", 1).stdout)
    assert some["frames"] == 4


def test_inspect_names_every_bad_episode(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "set")
    spoil(tmp_path / "set", 5)
    result = invoke(robopolicy, "data", "inspect", "set")
    assert result.exit_code == 3
    assert "problems, the first 1 of 1" in result.stdout
    assert "episode 1, frame 1: action holds a value that is no finite number" in result.stdout
    found = json.loads(invoke(robopolicy, "data", "inspect", "--json", "set").stdout)
    assert found["bad_episodes"] == 1 and found["problems"][0]["episode"] == 1 and found["frames"] == 10


def test_inspect_sees_what_concerns_the_whole(invoke: Invoke, tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    stats = json.loads((root / "meta/stats.json").read_text())
    stats["action"]["max"][1] += 5
    (root / "meta/stats.json").write_text(json.dumps(stats))
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps(info | {"total_frames": 99}))
    result = invoke(robopolicy, "data", "inspect", "set")
    assert result.exit_code == 3
    assert "the stored max of action[1] is" in result.stdout
    assert "info.json says total_frames 99, there are 15" in result.stdout


def test_inspect_decodes_when_asked(invoke: Invoke, tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    key = "observation.images.top"
    column = table[key].to_pylist()
    column[6]["bytes"] = column[6]["bytes"][:60]
    place, kind = table.schema.get_field_index(key), table.schema.field(key)
    pq.write_table(table.set_column(place, kind, pa.array(column, type=kind.type)), path)
    assert invoke(robopolicy, "data", "inspect", "set").exit_code == 0
    result = invoke(robopolicy, "data", "inspect", "set", "--decode")
    assert result.exit_code == 3 and f"{key}, row 6: the picture is damaged" in result.stdout


def test_inspect_what_is_not_there(invoke: Invoke) -> None:
    result = invoke(robopolicy, "data", "inspect", "nowhere")
    assert result.exit_code == 2 and "nowhere: there is no such file or folder" in result.stderr


# ---------------------------------------------------------------------------------------------------------
# import


def record(path: Path, number: int, frames: int = 6) -> None:
    rng = np.random.default_rng(number)
    with h5py.File(path, "w") as file:
        file["observations/qpos"], file["action"] = rng.normal(size=(2, frames, 14))
        file["observations/images/cam_high"] = np.full((frames, 16, 24, 3), 30 * number + 40, dtype=np.uint8)
        file["instruction"] = f"task {number}"


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(4):
        record(folder / f"episode_{number}.hdf5", number)
    return folder


def test_import_hdf5(invoke: Invoke, tmp_path: Path, recordings: Path) -> None:
    result = invoke(
        robopolicy, "data", "import", "recordings", "--fps", 50, "--robot-type", "aloha", "--out", "set"
    )
    assert result.exit_code == 0, result.output
    assert "wrote 4 episodes; 0 are left out" in result.stdout
    dataset, source = read_dataset(tmp_path / "set"), read_dataset(recordings)
    assert (dataset.info.fps, dataset.info.robot_type, dataset.info.version) == (50, "aloha", "lerobot v3.0")
    for number in range(4):
        episode = dataset[number]
        assert np.array_equal(episode.action, source[number].action)
        assert np.array_equal(episode.state, source[number].state)
        assert episode.task == f"task {number}"
        assert abs(episode.images["cam_high"][3].mean() - (30 * number + 40)) < 2
    again = invoke(robopolicy, "data", "import", "recordings", "--out", "set")
    assert again.exit_code == 2 and "a data set is there already" in again.stderr


def test_import_leaves_bad_episodes_out(invoke: Invoke, tmp_path: Path, recordings: Path) -> None:
    with h5py.File(recordings / "episode_1.hdf5", "a") as file:
        file["action"][2, 3] = np.nan
    (recordings / "episode_3.hdf5").write_bytes(b"")
    result = invoke(
        robopolicy, "data", "import", "recordings", "--pictures", "image", "--out", "set", "--json"
    )
    assert result.exit_code == 3
    summary = json.loads(result.stdout)
    assert summary["written"] == 2 and [entry["episode"] for entry in summary["bad"]] == [1, 3]
    assert "episode_1.hdf5: action holds a value that is no finite number" in result.stderr
    dataset = read_dataset(tmp_path / "set")
    assert [dataset[k].task for k in range(2)] == ["task 0", "task 2"]
    assert np.array_equal(dataset[1].images["cam_high"][5], np.full((16, 24, 3), 100, dtype=np.uint8))


def test_import_of_nothing_good(invoke: Invoke, tmp_path: Path, recordings: Path) -> None:
    for path in recordings.iterdir():
        path.write_bytes(b"")
    result = invoke(robopolicy, "data", "import", "recordings", "--out", "set")
    assert result.exit_code == 2 and "episode_0.hdf5: cannot be read" in result.stderr
    assert not (tmp_path / "set").exists()


def test_import_of_an_older_lerobot(invoke: Invoke, tmp_path: Path) -> None:
    write(tmp_path / "old", version="v2.1")
    result = invoke(robopolicy, "data", "import", "old", "--out", "new", "--limit", 2, "--pictures", "image")
    assert result.exit_code == 0, result.output
    old, new = read_dataset(tmp_path / "old"), read_dataset(tmp_path / "new")
    assert new.info.version == "lerobot v3.0" and new.info.robot_type == "toy" and len(new) == 2
    assert new.info.features["action"].names == ("left", "right")
    assert np.array_equal(new[1].action, old[1].action)
    assert np.array_equal(new[1].images["top"][2], old[1].images["top"][2])


def test_import_killed_goes_on(shell: Shell, invoke: Invoke, tmp_path: Path, recordings: Path) -> None:
    code = (
        "import os\nfrom pathlib import Path\n"
        "from polydit.robopolicy.data.importing import *\n"
        "recipe = ImportRecipe(source='recordings')\n"
        "import_dataset(open_source(recipe), Path('set'), recipe, watch=lambda i: i == 1 and os.kill(os.getpid(), 9))\n"
    )
    (tmp_path / "killed.py").write_text(code)
    assert shell("python killed.py").returncode == -9
    result = invoke(robopolicy, "data", "import", "recordings", "--out", "set")
    assert result.exit_code == 0, result.output
    assert "wrote 2 episodes, 2 are of an earlier call" in result.stdout
    dataset = read_dataset(tmp_path / "set")
    assert [dataset[k].task for k in range(len(dataset))] == [f"task {k}" for k in range(4)]
