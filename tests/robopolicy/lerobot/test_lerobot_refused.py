"""LeRobot data sets that are wrong or damaged: each is refused by name, and the episodes beside it are read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polydit.core.errors import InputError
from polydit.robopolicy.data import tables
from polydit.robopolicy.data.readers import read_dataset


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
    toy: Any, states: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    toy.change_info(states, change)
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
def test_info_that_cannot_be(
    toy: Any, states: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    toy.change_info(states, change)
    with pytest.raises(InputError, match=message):
        read_dataset(states)


def test_a_camera_whose_name_climbs(toy: Any, v3: Path, tmp_path: Path) -> None:
    info = json.loads((v3 / "meta/info.json").read_text())
    info["features"]["../../../etc"] = info["features"].pop(toy.film)
    root = tmp_path / "set"
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info))
    table = pq.read_table(v3 / "meta/episodes/chunk-000/file-000.parquet")
    names = [name.replace(toy.film, "../../../etc") for name in table.column_names]
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


def test_actions_of_another_length_than_declared(toy: Any, states: Path) -> None:
    toy.change_info(states, lambda info: info["features"]["action"].update(shape=[7]))
    with pytest.raises(InputError, match=r"min of action has the shape \[2\]; expected \[7\] as its feature"):
        read_dataset(states)
    (states / "meta/stats.json").unlink()
    with pytest.raises(InputError, match=r"action: the column has the shape \[2\] and info.json says \[7\]"):
        read_dataset(states)[0]


@pytest.mark.parametrize("version", ["v3", "v21"])
def test_damaged_files_are_refused_and_nothing_else(
    toy: Any, version: str, request: pytest.FixtureRequest, tmp_path: Path
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
    toy.assert_read_from(root)


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
