"""LeRobot data sets that we read: ours of both versions, and what other writers and versions make of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polydit.robopolicy.data.readers import read_dataset


@pytest.mark.parametrize("version", ["v3", "v21"])
def test_what_was_written_is_read_back(toy: Any, version: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(version)
    toy.assert_read_from(path)
    info = read_dataset(path).info
    assert (info.robot_type, info.fps, info.cameras) == ("toy", toy.fps, ("top", "wrist"))
    assert info.tasks == ("open the drawer", "reach", "push")
    assert info.features["observation.state"].names == ("x", "y", "z")


def test_tasks_of_newer_lerobot(states: Path) -> None:
    """Since 0.5 the index column is called "task"."""
    path = states / "meta/tasks.parquet"
    table = pq.read_table(path).rename_columns(["task_index", "task"])
    pq.write_table(table.replace_schema_metadata(None), path)
    assert read_dataset(states)[1].task == "reach"


def test_lists_of_variable_length_and_wider_numbers(toy: Any, states: Path) -> None:
    """Older writers kept vectors as plain lists, and some as float64."""
    path = states / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    action = pa.array(table["action"].to_pylist(), type=pa.list_(pa.float64()))
    pq.write_table(table.set_column(1, "action", action), path)
    assert np.array_equal(read_dataset(states)[1].action, toy.episode(1).action)


def test_a_foreign_v20_with_channels_first(toy: Any, v21: Path, tmp_path: Path) -> None:
    """Pictures whose shape is stated channels first, names in a table, columns that we do not read."""
    shutil.copytree(v21, tmp_path / "set")
    path = tmp_path / "set/meta/info.json"
    info = json.loads(path.read_text()) | {"codebase_version": "v2.0"}
    info["features"][toy.film] |= {"shape": [3, 32, 48], "names": ["channels", "height", "width"]}
    info["features"]["action"]["names"] = {"motors": ["left", "right"]}
    info["features"]["observation.depth"] = {"dtype": "video", "shape": [32, 48, 1], "names": None}
    info["features"]["words"] = {"dtype": "language", "shape": [1], "names": None}
    path.write_text(json.dumps(info))
    (tmp_path / "set/meta/episodes_stats.jsonl").unlink()
    dataset = read_dataset(tmp_path / "set")
    assert dataset.info.features[toy.film].shape == (32, 48, 3)
    assert dataset.info.features["action"].names == ("left", "right")
    assert set(dataset.info.left_out) == {"observation.depth", "words"}
    toy.assert_read_from(tmp_path / "set")


def test_a_data_set_without_a_state(toy: Any, tmp_path: Path) -> None:
    blind = toy.features(pictures=False)
    del blind["observation.state"]
    with toy.writer(tmp_path / "set", features=blind) as writer:
        writer.add(toy.episode(1, pictures=False, state=np.zeros((9, 0), np.float32)))
    assert read_dataset(tmp_path / "set")[0].state.shape == (9, 0)
