"""LeRobot data sets that we write, opened with pyarrow, json and av alone: files, columns, tables, videos."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

from polydit.robopolicy.data.statistics import NAMES

FILM, STILL = "observation.images.top", "observation.images.wrist"
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
    f"videos/{FILM}/chunk_index": "int64",
    f"videos/{FILM}/file_index": "int64",
    f"videos/{FILM}/from_timestamp": "double",
    f"videos/{FILM}/to_timestamp": "double",
    "meta/episodes/chunk_index": "int64",
    "meta/episodes/file_index": "int64",
}
INFO = {
    "codebase_version": "v3.0", "robot_type": "toy", "total_episodes": 4, "total_frames": 21, "total_tasks": 3,
    "chunks_size": 1000, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200, "fps": 20,
    "splits": {"train": "0:4"}, "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}  # fmt: skip


def columns_of(path: Path) -> dict[str, str]:
    return {field.name: str(field.type).replace("item:", "element:") for field in pq.read_schema(path)}


def test_v3_has_exactly_the_files(toy: Any, v3: Path) -> None:
    assert toy.files(v3) == [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        f"videos/{FILM}/chunk-000/file-000.mp4",
    ]
    assert sorted(path.name for path in v3.iterdir()) == ["data", "meta", "videos"]


def test_v3_info(v3: Path) -> None:
    info = json.loads((v3 / "meta/info.json").read_text())
    described = info.pop("features")
    assert info == INFO
    assert list(described) == [
        "observation.state", "action", FILM, STILL, "next.reward", "next.success", "observation.grid", "comment",
        "timestamp", "frame_index", "episode_index", "index", "task_index",
    ]  # fmt: skip
    assert described["observation.state"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]}
    assert described["next.success"] == {"dtype": "bool", "shape": [1], "names": None}
    assert described[STILL]["dtype"] == "image" and described[FILM]["dtype"] == "video"
    assert described[FILM]["info"]["video.codec"] == "h264"


def test_v3_rows(toy: Any, v3: Path) -> None:
    path = v3 / "data/chunk-000/file-000.parquet"
    assert columns_of(path) == ROWS
    table = pq.read_table(path)
    assert table["episode_index"].to_pylist() == [e for e, n in enumerate(toy.lengths) for _ in range(n)]
    assert table["frame_index"].to_pylist() == [k for n in toy.lengths for k in range(n)]
    assert table["index"].to_pylist() == list(range(21))
    assert table["task_index"].to_pylist() == [
        [0, 1, 0, 2][e] for e, n in enumerate(toy.lengths) for _ in range(n)
    ]
    assert np.allclose(table["timestamp"].to_pylist(), [k / toy.fps for n in toy.lengths for k in range(n)])
    expected = np.concatenate([toy.episode(e).action for e in range(4)])
    assert np.array_equal(np.array(table["action"].to_pylist(), dtype=np.float32), expected)
    words = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(words) == list(ROWS) and words[STILL] == {"_type": "Image"}
    value = {"dtype": "float32", "_type": "Value"}
    assert words["action"] == {"feature": value, "length": 2, "_type": "Sequence"}
    assert words["observation.grid"] == {"shape": [2, 4], "dtype": "int64", "_type": "Array2D"}
    groups = pq.ParquetFile(path).metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == list(toy.lengths)


def test_v3_tables_of_tasks_and_episodes(toy: Any, v3: Path) -> None:
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
    measured = [key for key in [*ROWS, FILM] if key != "comment"]
    assert set(statistics) == {f"stats/{key}/{name}" for key in measured for name in NAMES}
    assert statistics["stats/action/min"] == statistics["stats/action/q99"] == "list<element: double>"
    assert statistics["stats/next.success/max"] == "list<element: bool>"
    assert statistics["stats/frame_index/min"] == "list<element: int64>"
    assert statistics[f"stats/{FILM}/mean"] == "list<element: list<element: list<element: double>>>"
    assert {statistics[f"stats/{key}/count"] for key in measured} == {"list<element: int64>"}
    rows = pq.read_table(path).to_pylist()
    assert [row["length"] for row in rows] == list(toy.lengths)
    assert [row["dataset_from_index"] for row in rows] == [0, 5, 14, 15]
    assert np.allclose([row[f"videos/{FILM}/from_timestamp"] for row in rows], [0, 0.25, 0.7, 0.75])
    assert np.allclose([row[f"videos/{FILM}/to_timestamp"] for row in rows], [0.25, 0.7, 0.75, 1.05])
    assert np.allclose(rows[1]["stats/action/max"], toy.episode(1).action.max(axis=0))


def test_v3_video(toy: Any, v3: Path) -> None:
    with av.open(str(v3 / f"videos/{FILM}/chunk-000/file-000.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.codec.canonical_name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        frames = list(container.decode(stream))
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(k, 20) for k in range(21)]
    keys = [place for place, frame in enumerate(frames) if frame.key_frame]
    assert {0, 5, 14, 15} <= set(keys) and max(b - a for a, b in pairwise([*keys, 21])) <= 2
    greys = [frame.to_ndarray(format="rgb24").mean() for frame in frames]
    expected = [toy.grey(e, k) for e, n in enumerate(toy.lengths) for k in range(n)]
    assert np.abs(np.array(greys) - expected).max() < 2


def test_v3_pictures_in_the_table_are_png_without_loss(toy: Any, v3: Path) -> None:
    column = pq.read_table(v3 / "data/chunk-000/file-000.parquet")[STILL].to_pylist()
    assert [row["path"] for row in column[5:8]] == [f"frame-00000{k}.png" for k in range(3)]
    with av.open(io.BytesIO(column[6]["bytes"])) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.array_equal(picture, toy.episode(1).images["wrist"][1])


def test_v21_has_exactly_the_files(toy: Any, v21: Path) -> None:
    numbers = [f"episode_00000{e}" for e in range(4)]
    assert toy.files(v21) == [
        *(f"data/chunk-000/{name}.parquet" for name in numbers),
        "meta/episodes.jsonl",
        "meta/episodes_stats.jsonl",
        "meta/info.json",
        "meta/tasks.jsonl",
        *(f"videos/chunk-000/{FILM}/{name}.mp4" for name in numbers),
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
    assert stats["episode_index"] == 1
    assert set(stats["stats"]["action"]) == {"min", "max", "mean", "std", "count"}


def test_files_roll_over_by_size(toy: Any, tmp_path: Path) -> None:
    out = toy.write(tmp_path / "set", data_mb=1e-6, video_mb=1e-6)
    assert len(list((out / "data").rglob("*.parquet"))) == 4
    assert [path.name for path in sorted((out / "videos").rglob("*.mp4"))] == [
        f"file-00{k}.mp4" for k in range(4)
    ]
    assert len(list((out / "meta/episodes").rglob("*.parquet"))) == 4
    toy.assert_read_from(out)
