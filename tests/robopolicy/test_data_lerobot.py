"""LeRobot data sets: what we write, opened with pyarrow, json and av alone; what we read; what we refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polydit.core.errors import InputError
from polydit.core.jobs.lock import FolderLock
from polydit.robopolicy.data import tables
from polydit.robopolicy.data.features import Feature, features_of
from polydit.robopolicy.data.pictures import ArrayFrames, decode_picture, encode_png
from polydit.robopolicy.data.readers import read_dataset
from polydit.robopolicy.data.statistics import (
    NAMES,
    PictureCounts,
    Statistics,
    aggregate,
    number_statistics,
)
from polydit.robopolicy.data.videos import video_header
from polydit.robopolicy.data.writer import LeRobotWriter
from polydit.robopolicy.episode import Episode

LENGTHS, TASKS, FPS = (5, 9, 1, 6), ("open the drawer", "reach", "open the drawer", "push"), 20.0
CAMERA, STILL = "observation.images.top", "observation.images.wrist"


def level(episode: int, frame: int) -> int:
    """The grey of a picture: it tells which one it is."""
    return 10 * frame + 50 * episode + 8


def new_episode(number: int, *, pictures: bool = True, **changes: Any) -> Episode:
    count, rng = LENGTHS[number], np.random.default_rng(number)
    greys = np.array([level(number, frame) for frame in range(count)], dtype=np.uint8)
    top = np.broadcast_to(greys[:, None, None, None], (count, 32, 48, 3)).copy()
    wrist = rng.integers(0, 256, (count, 20, 30, 3), dtype=np.uint8)
    settings: dict[str, Any] = {
        "index": number,
        "fps": FPS,
        "task": TASKS[number],
        "state": rng.normal(size=(count, 3)).astype(np.float32),
        "action": rng.normal(size=(count, 2)).astype(np.float32),
        "images": {"top": ArrayFrames(top), "wrist": ArrayFrames(wrist)} if pictures else {},
        "extra": {
            "next.reward": np.arange(count, dtype=np.float32),
            "next.success": np.arange(count) == count - 1,
            "observation.grid": rng.integers(0, 9, (count, 2, 4)),
            "comment": np.array([f"frame {frame}" for frame in range(count)]),
        },
    }
    return Episode(**{**settings, **changes})


def features(pictures: bool = True) -> dict[str, Feature]:
    found = features_of(new_episode(0, pictures=pictures), state_names=("x", "y", "z"))
    if pictures:
        found[STILL] = Feature(dtype="image", shape=(20, 30, 3), names=("height", "width", "channels"))
    return found


def write(out: Path, *, pictures: bool = True, episodes: int = 4, **settings: Any) -> Path:
    with LeRobotWriter(out, fps=FPS, features=features(pictures), robot_type="toy", **settings) as writer:
        for number in range(episodes):
            writer.add(new_episode(number, pictures=pictures))
    return out


@pytest.fixture(scope="module")
def v3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("v3") / "set")


@pytest.fixture(scope="module")
def v21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("v21") / "set", version="v2.1")


@pytest.fixture(scope="module")
def states_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("states") / "set", pictures=False)


@pytest.fixture
def states(states_once: Path, tmp_path: Path) -> Path:
    """A data set without pictures, to be damaged."""
    return shutil.copytree(states_once, tmp_path / "set")


@pytest.fixture
def filmed(v3: Path, tmp_path: Path) -> Path:
    """One with pictures, to be damaged."""
    return shutil.copytree(v3, tmp_path / "set")


def files_of(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def columns_of(path: Path) -> dict[str, str]:
    return {field.name: str(field.type).replace("item:", "element:") for field in pq.read_schema(path)}


ROWS = {
    "observation.state": "fixed_size_list<element: float>[3]",
    "action": "fixed_size_list<element: float>[2]",
    STILL: "struct<bytes: binary, path: string>",
    "next.reward": "float",
    "next.success": "bool",
    "observation.grid": "list<element: list<element: int64>>",
    "comment": "string",
    "timestamp": "float",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
ENTRY = {
    "episode_index": "int64",
    "tasks": "list<element: string>",
    "length": "int64",
    "data/chunk_index": "int64",
    "data/file_index": "int64",
    "dataset_from_index": "int64",
    "dataset_to_index": "int64",
    f"videos/{CAMERA}/chunk_index": "int64",
    f"videos/{CAMERA}/file_index": "int64",
    f"videos/{CAMERA}/from_timestamp": "double",
    f"videos/{CAMERA}/to_timestamp": "double",
    "meta/episodes/chunk_index": "int64",
    "meta/episodes/file_index": "int64",
}
INFO = {
    "codebase_version": "v3.0", "robot_type": "toy", "total_episodes": 4, "total_frames": 21, "total_tasks": 3,
    "chunks_size": 1000, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": 20,
    "splits": {"train": "0:4"}, "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------
# What we write, opened without our code


def test_v3_has_exactly_the_files(v3: Path) -> None:
    assert files_of(v3) == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        f"videos/{CAMERA}/chunk-000/file-000.mp4",
    ]
    assert sorted(path.name for path in v3.iterdir()) == ["data", "meta", "videos"]


def test_v3_info(v3: Path) -> None:
    info = json.loads((v3 / "meta/info.json").read_text())
    described = info.pop("features")
    assert info == INFO
    assert list(described) == [
        "observation.state", "action", CAMERA, STILL, "next.reward", "next.success", "observation.grid", "comment",
        "timestamp", "frame_index", "episode_index", "index", "task_index",
    ]  # fmt: skip
    assert described["observation.state"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    assert described["next.success"] == {"dtype": "bool", "shape": [1], "names": None}
    assert described[STILL]["dtype"] == "image" and described[CAMERA]["dtype"] == "video"
    assert described[CAMERA]["info"]["video.codec"] == "h264"


def test_v3_rows(v3: Path) -> None:
    path = v3 / "data/chunk-000/file-000.parquet"
    assert columns_of(path) == ROWS
    table = pq.read_table(path)
    assert table["episode_index"].to_pylist() == [e for e, n in enumerate(LENGTHS) for _ in range(n)]
    assert table["frame_index"].to_pylist() == [k for n in LENGTHS for k in range(n)]
    assert table["index"].to_pylist() == list(range(21))
    assert table["task_index"].to_pylist() == [
        [0, 1, 0, 2][e] for e, n in enumerate(LENGTHS) for _ in range(n)
    ]
    assert np.allclose(table["timestamp"].to_pylist(), [k / FPS for n in LENGTHS for k in range(n)])
    expected = np.concatenate([new_episode(e).action for e in range(4)])
    assert np.array_equal(np.array(table["action"].to_pylist(), dtype=np.float32), expected)
    words = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(words) == list(ROWS) and words[STILL] == {"_type": "Image"}
    value = {"dtype": "float32", "_type": "Value"}
    assert words["action"] == {"feature": value, "length": 2, "_type": "Sequence"}
    assert words["observation.grid"] == {"shape": [2, 4], "dtype": "int64", "_type": "Array2D"}
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == list(LENGTHS)


def test_v3_tables_of_tasks_and_episodes(v3: Path) -> None:
    tasks = pq.read_table(v3 / "meta/tasks.parquet")
    assert columns_of(v3 / "meta/tasks.parquet") == {"task_index": "int64", "__index_level_0__": "string"}
    assert tasks.to_pydict() == {
        "task_index": [0, 1, 2],
        "__index_level_0__": ["open the drawer", "reach", "push"],
    }
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]
    path = v3 / "meta/episodes/chunk-000/file-000.parquet"
    columns = columns_of(path)
    statistics = {name: columns.pop(name) for name in list(columns) if name.startswith("stats/")}
    assert columns == ENTRY
    measured = [key for key in [*ROWS, CAMERA] if key != "comment"]
    assert set(statistics) == {f"stats/{key}/{name}" for key in measured for name in NAMES}
    assert statistics["stats/action/min"] == statistics["stats/action/q99"] == "list<element: double>"
    assert statistics["stats/next.success/max"] == "list<element: bool>"
    assert statistics["stats/frame_index/min"] == "list<element: int64>"
    assert statistics[f"stats/{CAMERA}/mean"] == "list<element: list<element: list<element: double>>>"
    assert {statistics[f"stats/{key}/count"] for key in measured} == {"list<element: int64>"}
    rows = pq.read_table(path).to_pylist()
    assert [row["length"] for row in rows] == list(LENGTHS)
    assert [row["dataset_from_index"] for row in rows] == [0, 5, 14, 15]
    assert np.allclose([row[f"videos/{CAMERA}/from_timestamp"] for row in rows], [0, 0.25, 0.7, 0.75])
    assert np.allclose([row[f"videos/{CAMERA}/to_timestamp"] for row in rows], [0.25, 0.7, 0.75, 1.05])
    assert np.allclose(rows[1]["stats/action/max"], new_episode(1).action.max(axis=0))


def test_v3_statistics(v3: Path) -> None:
    stats = json.loads((v3 / "meta/stats.json").read_text())
    action = np.concatenate([new_episode(e).action for e in range(4)]).astype(np.float64)
    assert set(stats["action"]) == set(NAMES)
    assert stats["action"]["count"] == [21]
    assert np.allclose(stats["action"]["std"], action.std(axis=0))
    assert np.allclose(stats["action"]["q10"], np.quantile(action, 0.1, axis=0))
    assert stats["frame_index"]["max"] == [8] and stats["next.success"]["max"] == [True]
    wrist = np.concatenate([np.stack(list(new_episode(e).images["wrist"])) for e in range(4)]) / 255.0
    assert np.shape(stats[STILL]["mean"]) == (3, 1, 1)
    assert np.allclose(np.ravel(stats[STILL]["mean"]), wrist.mean(axis=(0, 1, 2)))
    assert np.allclose(np.ravel(stats[STILL]["std"]), wrist.std(axis=(0, 1, 2)))
    assert np.allclose(np.ravel(stats[STILL]["q50"]), np.quantile(wrist, 0.5, axis=(0, 1, 2)), atol=1 / 255)
    assert stats[STILL]["count"] == [21]


def test_v3_video(v3: Path) -> None:
    with av.open(str(v3 / f"videos/{CAMERA}/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec.canonical_name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        frames = list(container.decode(stream))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(k, 20) for k in range(21)]
    keys = [place for place, frame in enumerate(frames) if frame.key_frame]
    assert {0, 5, 14, 15} <= set(keys) and max(b - a for a, b in pairwise([*keys, 21])) <= 2
    greys = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    expected = [level(e, k) for e, n in enumerate(LENGTHS) for k in range(n)]
    assert np.abs(np.array(greys) - expected).max() < 2


def test_v3_pictures_in_the_table_are_png_without_loss(v3: Path) -> None:
    column = pq.read_table(v3 / "data/chunk-000/file-000.parquet")[STILL].to_pylist()
    assert [row["path"] for row in column[5:8]] == [f"frame-00000{k}.png" for k in range(3)]
    with av.open(str(save(v3.parent / "one.png", column[6]["bytes"]))) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.array_equal(picture, new_episode(1).images["wrist"][1])


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_v21_has_exactly_the_files(v21: Path) -> None:
    numbers = [f"episode_00000{e}" for e in range(4)]
    assert files_of(v21) == [
        *(f"data/chunk-000/{name}.parquet" for name in numbers),
        "meta/episodes.jsonl",
        "meta/episodes_stats.jsonl",
        "meta/info.json",
        "meta/tasks.jsonl",
        *(f"videos/chunk-000/{CAMERA}/{name}.mp4" for name in numbers),
    ]
    assert all(columns_of(path) == ROWS for path in (v21 / "data").rglob("*.parquet"))
    info = json.loads((v21 / "meta/info.json").read_text())
    assert (info["codebase_version"], info["total_videos"], info["total_chunks"]) == ("v2.1", 4, 1)
    assert info["data_path"] == "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    lines = [json.loads(line) for line in (v21 / "meta/episodes.jsonl").read_text().splitlines()]
    assert lines[1] == {"episode_index": 1, "tasks": ["reach"], "length": 9}
    tasks = [json.loads(line) for line in (v21 / "meta/tasks.jsonl").read_text().splitlines()]
    assert tasks[2] == {"task_index": 2, "task": "push"}
    stats = json.loads((v21 / "meta/episodes_stats.jsonl").read_text().splitlines()[1])
    assert stats["episode_index"] == 1 and set(stats["stats"]["action"]) == {
        "min",
        "max",
        "mean",
        "std",
        "count",
    }


def test_files_roll_over_by_size(tmp_path: Path) -> None:
    out = write(tmp_path / "set", data_mb=1e-6, video_mb=1e-6)
    assert len(list((out / "data").rglob("*.parquet"))) == 4
    assert [path.name for path in sorted((out / "videos").rglob("*.mp4"))] == [
        f"file-00{k}.mp4" for k in range(4)
    ]
    assert len(list((out / "meta/episodes").rglob("*.parquet"))) == 4
    same_content(out)


# ---------------------------------------------------------------------------------------------------------
# What we read


def same_content(path: Path) -> None:
    dataset = read_dataset(path)
    assert len(dataset) == 4 and dataset.problems == ()
    for number in range(4):
        expected, found = new_episode(number), dataset[number]
        assert (found.index, found.task, found.fps) == (number, expected.task, FPS)
        assert np.array_equal(found.state, expected.state) and np.array_equal(found.action, expected.action)
        assert set(found.extra) == set(expected.extra)
        for key, rows in expected.extra.items():
            assert np.array_equal(found.extra[key], rows)
            assert found.extra[key].dtype.kind == rows.dtype.kind
        assert all(
            np.array_equal(a, b) for a, b in zip(found.images["wrist"], expected.images["wrist"], strict=True)
        )
        greys = [frame.mean() for frame in found.images["top"]]
        assert np.abs(np.array(greys) - [level(number, k) for k in range(LENGTHS[number])]).max() < 4


@pytest.mark.parametrize("version", ["v3", "v21"])
def test_what_was_written_is_read_back(version: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(version)
    same_content(path)
    info = read_dataset(path).info
    assert (info.robot_type, info.fps, info.cameras) == ("toy", FPS, ("top", "wrist"))
    assert info.tasks == ("open the drawer", "reach", "push")
    assert info.features["observation.state"].names == ("x", "y", "z")


def test_pictures_are_found_one_by_one(v3: Path) -> None:
    """In any order, in several episodes of one file, each frame is exactly the one that was asked for."""
    dataset = read_dataset(v3)
    places = [(e, k) for e, n in enumerate(LENGTHS) for k in range(n)]
    for episode, frame in np.random.default_rng(0).permutation(places).tolist():
        frames = dataset[episode].images["top"]
        assert abs(frames[frame].mean() - level(episode, frame)) < 2
    with pytest.raises(IndexError):
        dataset[0].images["top"][5]


def test_statistics_of_both_versions(v3: Path, v21: Path) -> None:
    """v2.1 has no quantiles: they are measured."""
    new, old = read_dataset(v3).statistics, read_dataset(v21).statistics
    for name in NAMES:
        assert np.allclose(new["action"][name], old["action"][name])
        assert new["action"][name].dtype == np.float64
    assert np.allclose(new[CAMERA]["mean"], old[CAMERA]["mean"])


def test_tasks_of_newer_lerobot(states: Path) -> None:
    """Since 0.5 the index column is called "task"."""
    path = states / "meta/tasks.parquet"
    table = pq.read_table(path).rename_columns(["task_index", "task"])
    pq.write_table(table.replace_schema_metadata(None), path)
    assert read_dataset(states)[1].task == "reach"


def test_lists_of_variable_length_and_wider_numbers(states: Path) -> None:
    """Older writers kept vectors as plain lists, and some as float64."""
    path = states / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    action = pa.array(table["action"].to_pylist(), type=pa.list_(pa.float64()))
    pq.write_table(table.set_column(1, "action", action), path)
    assert np.array_equal(read_dataset(states)[1].action, new_episode(1).action)


def test_a_foreign_v20_with_channels_first(v21: Path, tmp_path: Path) -> None:
    """Pictures whose shape is stated channels first, names in a table, columns that we do not read."""
    shutil.copytree(v21, tmp_path / "set")
    path = tmp_path / "set/meta/info.json"
    info = json.loads(path.read_text()) | {"codebase_version": "v2.0"}
    info["features"][CAMERA] |= {"shape": [3, 32, 48], "names": ["channels", "height", "width"]}
    info["features"]["action"]["names"] = {"motors": ["left", "right"]}
    info["features"]["observation.depth"] = {"dtype": "video", "shape": [32, 48, 1], "names": None}
    info["features"]["words"] = {"dtype": "language", "shape": [1], "names": None}
    path.write_text(json.dumps(info))
    (tmp_path / "set/meta/episodes_stats.jsonl").unlink()
    dataset = read_dataset(tmp_path / "set")
    assert dataset.info.features[CAMERA].shape == (32, 48, 3)
    assert dataset.info.features["action"].names == ("left", "right")
    assert set(dataset.info.left_out) == {"observation.depth", "words"}
    same_content(tmp_path / "set")


@pytest.mark.skipif("libsvtav1" not in av.codecs_available, reason="this PyAV cannot write AV1")
def test_av1_as_lerobot_writes_it(v21: Path, tmp_path: Path) -> None:
    """LeRobot's default codec: read frame by frame like h264."""
    out = shutil.copytree(v21, tmp_path / "set")
    for path in (out / "videos").rglob("*.mp4"):
        rewrite(path, codec="libsvtav1", options={"g": "2", "crf": "20", "preset": "10"})
    assert video_header(next((out / "videos").rglob("*.mp4"))).codec == "av1"
    same_content(out)


def test_a_data_set_without_a_state(tmp_path: Path) -> None:
    blind = {key: feature for key, feature in features(False).items() if key != "observation.state"}
    with LeRobotWriter(tmp_path / "set", fps=FPS, features=blind, robot_type="") as writer:
        writer.add(new_episode(1, pictures=False, state=np.zeros((9, 0), np.float32)))
    assert read_dataset(tmp_path / "set")[0].state.shape == (9, 0)


# ---------------------------------------------------------------------------------------------------------
# What we refuse


def change_info(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    info = json.loads((root / "meta/info.json").read_text())
    change(info)
    (root / "meta/info.json").write_text(json.dumps(info))


def change_rows(root: Path, name: str, change: Callable[[list[Any]], object]) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    values = table[name].to_pylist()
    change(values)
    place = table.schema.get_field_index(name)
    pq.write_table(table.set_column(place, name, pa.array(values, type=table.schema.field(name).type)), path)


def put(place: int, value: object) -> Callable[[list[Any]], object]:
    return lambda values: values.__setitem__(place, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda info: info["features"]["next.reward"].update(shape=[7]),
            r"episode 1, next\.reward: the column has the shape \[1\] and info.json says \[7\]",
        ),
        (
            lambda info: info["features"]["next.reward"].update(dtype="bool"),
            r"next\.reward: the column holds float and info.json says bool",
        ),
        (lambda info: info["features"].update(grip=info["features"]["action"]), "has no column 'grip'"),
        (lambda info: info.update(fps=30), "20 frames per second; expected fps 30 as info.json says"),
        (lambda info: info.update(fps=20.5), "timestamps are of 20"),
    ],
)
def test_info_that_does_not_fit_the_rows(
    states: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change_info(states, change)
    dataset = read_dataset(states)
    with pytest.raises(InputError, match=message):
        dataset[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(fps=0), "fps is 0"),
        (lambda info: info.update(fps="fast"), "fps is 'fast'"),
        (lambda info: info.update(total_frames=10**15), "total_frames is 10"),
        (lambda info: info["features"]["action"].update(shape=[10**9]), "the shape .* is absurd"),
        (lambda info: info["features"]["action"].update(shape=[2, 2]), r"action is float32 \[2, 2\]"),
        (lambda info: info["features"]["action"].update(shape=[-1]), "impossible"),
        (lambda info: info["features"]["action"].update(shape=3), "not a feature"),
        (lambda info: info["features"].pop("action"), "no feature 'action'"),
        (lambda info: info["features"].update(c={"dtype": "video", "shape": [10**6, 8, 3]}), "at most 8192"),
        (lambda info: info.update(features=[]), "not the info.json"),
        (lambda info: info.update(codebase_version="v9"), "version is 'v9'"),
        (lambda info: info.update(data_path="../{chunk_index}/{file_index}.parquet"), "leads out"),
        (lambda info: info.update(data_path="/etc/{chunk_index}/{file_index}"), "leads out"),
        (lambda info: info.update(data_path="a/..\\..\\{chunk_index}"), "leads out"),
        (lambda info: info.update(data_path="{chunk_index.__class__}"), "names 'chunk_index.__class__'"),
        (lambda info: info.update(data_path="{file_index:9999999999}"), "names 'file_index'"),
        (lambda info: info.update(data_path="{chunk_index"), "a path template is"),
        (lambda info: info.update(data_path=None), "a path template is None"),
        (lambda info: info.update(data_path="{episode_index}"), "names 'episode_index'"),
    ],
)  # fmt: skip
def test_info_that_cannot_be(states: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    change_info(states, change)
    with pytest.raises(InputError, match=message):
        read_dataset(states)


def test_a_camera_whose_name_climbs(v3: Path, tmp_path: Path) -> None:
    info = json.loads((v3 / "meta/info.json").read_text())
    info["features"]["../../../etc"] = info["features"].pop(CAMERA)
    root = tmp_path / "set"
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    table = pq.read_table(v3 / "meta/episodes/chunk-000/file-000.parquet")
    names = [name.replace(CAMERA, "../../../etc") for name in table.column_names]
    pq.write_table(table.rename_columns(names), root / "meta/episodes/chunk-000/file-000.parquet")
    with pytest.raises(InputError, match="leads out of the data set"):
        read_dataset(root)


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        (
            "action",
            put(7, [0.0, np.nan]),
            r"episode 1, frame 2: action holds a value that is no finite number",
        ),
        ("observation.state", put(5, [np.inf, 0.0, 0.0]), "episode 1, frame 0: observation.state holds"),
        ("next.reward", put(6, np.nan), "episode 1, frame 1: next.reward holds"),
        ("action", put(7, None), "episode 1, action, row 2: a value is missing"),
        ("frame_index", put(8, 2), "episode 1: its frame_index is 2 at row 3; expected 3"),
        ("task_index", put(5, 9), "episode 1: its task_index is 9"),
        ("timestamp", put(13, 7.0), "episode 1: its timestamps are of 20"),
        ("episode_index", put(13, 0), "episode 1: the table has 8 rows of it; expected 9"),
    ],
)
def test_a_bad_episode_fails_alone(
    states: Path, column: str, change: Callable[[list[Any]], object], message: str
) -> None:
    change_rows(states, column, change)
    dataset = read_dataset(states)
    with pytest.raises(InputError, match=message):
        dataset[1]
    assert dataset[3].task == "push"


def test_a_file_that_is_missing_or_torn(states: Path, tmp_path: Path) -> None:
    path = states / "data/chunk-000/file-000.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"file-000.parquet: cannot be read"):
        read_dataset(states)[0]
    path.unlink()
    with pytest.raises(InputError, match=r"file-000.parquet: cannot be read"):
        read_dataset(states)[0]
    (states / "meta/tasks.parquet").unlink()
    with pytest.raises(InputError, match=r"tasks.parquet"):
        read_dataset(states)
    with pytest.raises(InputError, match="no such file"):
        read_dataset(tmp_path / "nowhere")


def test_a_table_that_would_fill_the_memory(states: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 1000)
    with pytest.raises(InputError, match=r"21 rows of \d+ numbers"):
        read_dataset(states)[0]


def test_a_run_of_equal_values_counts_as_what_it_becomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of thousands of equal numbers take less than a page in the file."""
    path = tmp_path / "long.parquet"
    numbers = pa.array(np.zeros(400_000, dtype=np.int8)).dictionary_encode()
    pq.write_table(pa.table([numbers], names=["a"]), path)
    assert path.stat().st_size < 2**12
    monkeypatch.setattr(tables, "MAX_TABLE_BYTES", 2**20)
    with pytest.raises(InputError, match="rows of 1 numbers"):
        tables.read_columns(path, ["a"])


def rewrite(path: Path, *, without: int = -1, codec: str = "libx264", options: Mapping[str, str]) -> None:
    """Encodes a video again, perhaps without one frame; the times of the others stay as they were."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 20)
        for number, pixels in enumerate(frames):
            if number != without:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 20)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("version", "name", "place"), [("v3", "file-000.mp4", 8), ("v21", "episode_000001.mp4", 3)]
)
def test_a_video_with_a_missing_frame_is_named(
    version: str, name: str, place: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Frame 3 of episode 1, alone in its file or not."""
    out = shutil.copytree(request.getfixturevalue(version), tmp_path / "set")
    (video,) = (out / "videos").rglob(name)
    rewrite(video, without=place, options={"g": "2", "bf": "0"})
    dataset = read_dataset(out)
    with pytest.raises(InputError) as refused:
        dataset[1]
    message = f"{video}: episode 1: the video has 8 frames of this episode; expected 9"
    assert str(refused.value) == message
    assert abs(dataset[3].images["top"][2].mean() - level(3, 2)) < 3


def test_a_video_that_is_torn_or_of_another_size(filmed: Path) -> None:
    out = filmed
    video = next((out / "videos").rglob("*.mp4"))
    content = video.read_bytes()
    change_info(out, lambda info: info["features"][CAMERA].update(shape=[64, 48, 3]))
    with pytest.raises(InputError, match=r"shape \[32, 48, 3\]; expected \[64, 48, 3\] as info.json says"):
        read_dataset(out)[0]
    change_info(out, lambda info: info["features"][CAMERA].update(shape=[32, 48, 3]))
    video.write_bytes(content[:200])
    with pytest.raises(InputError, match="the video cannot be read"):
        read_dataset(out)[0]
    start = content.index(b"mdat") + 4
    video.write_bytes(content[:start] + bytes(len(content) // 2) + content[start + len(content) // 2 :])
    with pytest.raises(InputError, match=r"file-000\.mp4"):
        list(read_dataset(out)[0].images["top"])


def test_actions_of_another_length_than_declared(states: Path) -> None:
    change_info(states, lambda info: info["features"]["action"].update(shape=[7]))
    with pytest.raises(InputError, match=r"min of action has the shape \[2\]; expected \[7\] as its feature"):
        read_dataset(states)
    (states / "meta/stats.json").unlink()
    with pytest.raises(InputError, match=r"action: the column has the shape \[2\] and info.json says \[7\]"):
        read_dataset(states)[0]


def test_statistics_that_do_not_fit(states: Path) -> None:
    path = states / "meta/stats.json"
    stats = json.loads(path.read_text())
    path.write_text(json.dumps(stats | {"action": {**stats["action"], "mean": [0.0, 0.0, 0.0]}}))
    with pytest.raises(InputError, match=r"statistic mean of action has the shape \[3\]; expected \[2\]"):
        read_dataset(states)
    path.write_text(json.dumps(stats | {"action": {**stats["action"], "std": [float("nan"), 1.0]}}))
    with pytest.raises(InputError, match="statistic std of action is no finite number"):
        read_dataset(states)
    path.write_text("[1]")
    with pytest.raises(InputError, match="not statistics by feature"):
        read_dataset(states)
    path.unlink()  # then they are measured
    assert np.allclose(read_dataset(states).statistics["action"]["q99"], stats["action"]["q99"])


@pytest.mark.parametrize("version", ["v3", "v21"])
def test_damaged_files_are_refused_and_nothing_else(
    version: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Bytes changed or cut off anywhere: an episode is read, or refused with a message; no other error comes out."""
    root, rng = shutil.copytree(request.getfixturevalue(version), tmp_path / "set"), np.random.default_rng(0)
    refused = 0
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for _ in range(4):
            damaged = bytearray(content)
            damaged[rng.integers(len(content))] = rng.integers(256)
            place = rng.integers(len(content))
            damaged[place : place + 20] = bytes(20)
            path.write_bytes(bytes(damaged[: rng.integers(1, 2 * len(content))]))
            refused += read_all(root)
        path.write_bytes(content)
    assert refused > 10
    same_content(root)


def read_all(root: Path) -> bool:
    """Reads everything that can be read; whether something was refused."""
    try:
        dataset = read_dataset(root)
        for number in range(len(dataset)):
            for frames in dataset[number].images.values():
                assert len(list(frames)) == len(frames)
    except InputError:
        return True
    return False


def test_pictures_that_are_damaged() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    content = encode_png(picture)
    assert np.array_equal(decode_picture(content), picture)
    for wrong in (content[: len(content) // 2], b"GIF89a", b"", content[:40]):
        with pytest.raises(InputError):
            decode_picture(wrong, where="row 3")


# ---------------------------------------------------------------------------------------------------------
# Writing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 25.0}, "25 frames per second; expected 20"),
        ({"action": np.zeros((9, 3), np.float32)}, r"action has the shape \[3\]; expected \[2\]"),
        ({"images": {}}, r"lacks \['observation.images.top', 'observation.images.wrist'\]"),
        ({"extra": {}}, "lacks .*next.reward"),
        ({"extra": {**new_episode(1).extra, "b": np.zeros(9)}}, r"has \['b'\] that the features lack"),
        ({"extra": {**new_episode(1).extra, "next.reward": np.full(9, np.nan)}}, "next.reward holds a value"),
        (
            {"images": {**new_episode(1).images, "top": ArrayFrames(np.zeros((9, 8, 8, 3), np.uint8))}},
            r"top has the shape \[8, 8, 3\]; expected \[32, 48, 3\]",
        ),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(
    tmp_path: Path, changes: Mapping[str, Any], message: str
) -> None:
    with LeRobotWriter(tmp_path / "set", fps=FPS, features=features(), robot_type="toy") as writer:
        writer.add(new_episode(0))
        with pytest.raises(InputError, match=message):
            writer.add(new_episode(1, **changes))
        for number in (1, 2, 3):
            writer.add(new_episode(number))
    same_content(tmp_path / "set")


def test_features_that_cannot_be_written(tmp_path: Path) -> None:
    def refused(found: dict[str, Feature], message: str) -> None:
        with pytest.raises(InputError, match=message):
            LeRobotWriter(tmp_path / "set", fps=FPS, features=found, robot_type="")

    odd = Feature(dtype="video", shape=(31, 48, 3))
    refused({**features(), CAMERA: odd}, r"shape \[31, 48, 3\] cannot be a video; expected even")
    refused({**features(), "a/b": Feature(dtype="float32", shape=(1,))}, "cannot be a file name")
    refused({**features(), "index": Feature(dtype="int64", shape=(1,))}, "'index' is written by itself")
    refused({"observation.state": Feature(dtype="float32", shape=(1,))}, "lack 'action'")
    assert not (tmp_path / "set").exists()


def test_nothing_is_replaced_unasked(states: Path, tmp_path: Path) -> None:
    before = {name: (states / name).read_bytes() for name in files_of(states)}
    with pytest.raises(InputError, match=r"a data set is there already.*--overwrite"):
        write(states)
    assert {name: (states / name).read_bytes() for name in files_of(states)} == before
    write(states, overwrite=True)
    same_content(states)
    (tmp_path / "mine/data").mkdir(parents=True)
    with pytest.raises(InputError, match="holds data but is no data set"):
        write(tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        write(tmp_path / "file")


def test_a_writer_without_episodes_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no episode was written"):
        write(tmp_path / "set", episodes=0)
    assert files_of(tmp_path) == []


def test_two_writers_at_once(tmp_path: Path) -> None:
    (tmp_path / "set/.writing").mkdir(parents=True)
    lock = FolderLock(tmp_path / "set/.writing")
    with pytest.raises(InputError, match=f"process {os.getpid()}"):
        write(tmp_path / "set")
    lock.release()


KILLED = """
import os, sys
sys.path.insert(0, {folder!r})
from pathlib import Path
import test_data_lerobot as t
import polydit.robopolicy.data.staging as staging, polydit.robopolicy.data.write_v3 as v3
def die(*args, **settings): os.kill(os.getpid(), 9)
{patch}
t.write(Path("set"), resume=True)
"""
PATCHES = {
    "in a video": "real, calls = staging.encode_video, []\n"
    "staging.encode_video = lambda *a, **s: calls.append(1) or (die() if len(calls) > 2 else real(*a, **s))",
    "before the record": "staging._record = die",
    "while finishing": "v3.write_tasks = die",
    "before info.json": "v3.info_json = die",
}


@pytest.mark.parametrize("moment", PATCHES)
def test_killed_writing_goes_on(
    tmp_path: Path, shell: Callable[..., subprocess.CompletedProcess[str]], moment: str
) -> None:
    """Whenever it is killed, the data set is unfinished until the same call finishes it, without a double episode."""
    code = KILLED.format(folder=str(Path(__file__).parent), patch=PATCHES[moment])
    script = save(tmp_path / "killed.py", code.encode())
    assert shell(f"python {script}").returncode == -9
    with pytest.raises(InputError, match="not finished"):
        read_dataset(tmp_path / "set")
    with LeRobotWriter(
        tmp_path / "set", fps=FPS, features=features(), robot_type="toy", resume=True
    ) as writer:
        assert len(writer) == {"in a video": 2, "before the record": 0}.get(moment, 4)
        for number in range(len(writer), 4):
            writer.add(new_episode(number))
    same_content(tmp_path / "set")
    assert not (tmp_path / "set/.writing").exists()
    assert not [name for name in files_of(tmp_path / "set") if "tmp" in name]


def test_other_settings_do_not_go_on(tmp_path: Path) -> None:
    def begin(**changes: Any) -> None:
        settings: dict[str, Any] = {
            "fps": FPS,
            "features": features(False),
            "robot_type": "toy",
            "recipe": {"a": 1},
        }
        with LeRobotWriter(tmp_path / "set", resume=True, **{**settings, **changes}) as writer:
            writer.add(new_episode(0, pictures=False), {"seed": 7})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    with pytest.raises(InputError, match=r"other settings: fps, robot_type, a.*--overwrite"):
        begin(fps=10.0, robot_type="other", recipe={"a": 2})
    with pytest.raises(InputError, match="other settings: features"):
        begin(features={k: v for k, v in features(False).items() if k != "comment"})
    with LeRobotWriter(
        tmp_path / "set", resume=True, fps=FPS, features=features(False), robot_type="toy", recipe={"a": 1}
    ) as writer:
        assert [staged.note for staged in writer.episodes] == [{"seed": 7}]
    recipe = json.loads((tmp_path / "set/data.json").read_text())
    assert recipe == {"recipe": {"a": 1}, "episodes": [{"seed": 7}]}
    assert len(read_dataset(tmp_path / "set")) == 1


# ---------------------------------------------------------------------------------------------------------
# Statistics


def test_statistics_of_numbers() -> None:
    rows = np.random.default_rng(0).normal(size=(500, 3))
    found = number_statistics(rows)
    assert set(found) == set(NAMES)
    assert np.allclose(found["mean"], rows.mean(axis=0)) and np.allclose(found["std"], rows.std(axis=0))
    assert np.allclose(found["q01"], np.quantile(rows, 0.01, axis=0))
    assert found["count"].tolist() == [500]
    assert number_statistics(np.arange(5))["q50"].tolist() == [2]
    assert number_statistics(np.ones((4, 2, 3)))["max"].shape == (3,)


def test_statistics_add_up() -> None:
    """Exact but for quantiles, however the episodes are cut; of quantiles an estimate between the episodes'."""
    rng = np.random.default_rng(1)
    parts = [rng.normal(loc=k, scale=1 + k, size=(n, 2)) for k, n in enumerate((10, 200, 3))]
    whole, added = number_statistics(np.concatenate(parts)), aggregate([number_statistics(p) for p in parts])
    for name in ("min", "max", "mean", "std", "count"):
        assert np.allclose(whole[name], added[name])
    middles = np.stack([number_statistics(part)["q50"] for part in parts])
    assert (added["q50"] >= middles.min(axis=0)).all() and (added["q50"] <= middles.max(axis=0)).all()
    without = [{k: v for k, v in number_statistics(p).items() if not k.startswith("q")} for p in parts]
    assert "q50" not in aggregate(without)


def test_statistics_of_pictures_are_exact_over_episodes() -> None:
    pictures = np.random.default_rng(2).integers(20, 240, (6, 8, 10, 3), dtype=np.uint8)
    first, second = PictureCounts(), PictureCounts()
    for k, picture in enumerate(pictures):
        (first if k < 2 else second).add(picture)
    found = (first + second).statistics()
    values = pictures.reshape(-1, 3) / 255.0
    assert found["mean"].shape == (3, 1, 1) and found["count"].tolist() == [6]
    for name, expected in (
        ("min", values.min(axis=0)), ("max", values.max(axis=0)), ("mean", values.mean(axis=0)),
        ("std", values.std(axis=0)), ("q10", np.quantile(values, 0.1, axis=0, method="inverted_cdf")),
        ("q99", np.quantile(values, 0.99, axis=0, method="inverted_cdf")),
    ):  # fmt: skip
        assert np.allclose(found[name].reshape(3), expected), name


def test_statistics_go_through_json() -> None:
    found = Statistics({"action": number_statistics(np.random.default_rng(3).normal(size=(9, 2)))})
    back = Statistics.from_json(json.loads(json.dumps(found.to_json())))
    assert all(np.array_equal(back["action"][name], found["action"][name]) for name in NAMES)
    with pytest.raises(InputError, match="not statistics"):
        Statistics.from_json({"action": {"mean": ["a"]}})
