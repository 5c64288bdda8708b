"""The files of a LeRobotDataset v3.0, made from episodes that wait: many in a file, a new file when one is large."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polydit.core.jobs.files import atomic_file
from polydit.robopolicy.data.encoding import CODEC, PIXEL_FORMAT, join_videos, stream_setup
from polydit.robopolicy.data.features import INDEX, Feature
from polydit.robopolicy.data.info import INFO
from polydit.robopolicy.data.lerobot_v3 import EPISODES, STATS, TASKS
from polydit.robopolicy.data.staging import Staged, Staging
from polydit.robopolicy.data.statistics import NAMES, PictureCounts, Row, Statistics, number_statistics, typed
from polydit.robopolicy.data.tables import column_values, read_columns

VERSION = "v3.0"
CHUNKS_SIZE = 1000  # files in a folder
_FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH, VIDEO_PATH = f"data/{_FILE}.parquet", "videos/{video_key}/" + f"{_FILE}.mp4"


@dataclass(kw_only=True)
class _File:
    """Episodes that share a file."""

    number: int
    members: list[Staged] = field(default_factory=list)

    @property
    def place(self) -> dict[str, int]:
        """The numbers of folder and file."""
        return {"chunk_index": self.number // CHUNKS_SIZE, "file_index": self.number % CHUNKS_SIZE}


def write_v3(out: Path, staging: Staging, robot_type: str, data_mb: float, video_mb: float) -> None:
    """Writes all files, meta/info.json last.

    Args:
        out: Folder of the data set, free of our names.
        staging: The episodes.
        robot_type: Name of the robot.
        data_mb: Size in MiB at which a new table begins.
        video_mb: The same for videos.
    """
    rows: list[dict[str, Any]] = [_first_columns(staged) for staged in staging.episodes]
    start = 0
    for row in rows:
        row["dataset_from_index"], start = start, start + row["length"]
        row["dataset_to_index"] = start
    tables = _write_tables(out, staging, data_mb, rows)
    for key, feature in staging.features.items():
        if feature.dtype == "video":
            _write_videos(out, staging, key, video_mb, rows)
    _write_episodes(out, staging, data_mb, rows)
    write_tasks(out, staging)
    statistics = whole_statistics(staging, tables).to_json({**staging.features, **INDEX})
    write_json(out / STATS, statistics)
    write_json(out / INFO, {**info_json(staging, robot_type, VERSION), **_paths(staging, data_mb, video_mb)})


def _first_columns(staged: Staged) -> dict[str, Any]:
    return {"episode_index": staged.index, "tasks": [staged.task], "length": staged.length}


def _grouped(
    episodes: Sequence[Staged], sizes: Sequence[int], limit_mb: float, kinds: Sequence[object] | None = None
) -> list[_File]:
    """Episodes in files of at most that size, though of one at least; those of different kinds share none."""
    files, full = [_File(number=0)], 0
    for number, (staged, size) in enumerate(zip(episodes, sizes, strict=True)):
        other = kinds is not None and number > 0 and kinds[number] != kinds[number - 1]
        if files[-1].members and (full + size > limit_mb * 2**20 or other):
            files.append(_File(number=len(files)))
            full = 0
        files[-1].members.append(staged)
        full += size
    return files


def _write_tables(out: Path, staging: Staging, limit_mb: float, rows: list[dict[str, Any]]) -> list[Path]:
    """One row group per episode, so that an episode can be read without the others."""
    parts = [staging.table(staged.index) for staged in staging.episodes]
    schema, paths = pq.read_schema(parts[0]), []
    for file in _grouped(staging.episodes, [part.stat().st_size for part in parts], limit_mb):
        paths.append(_made(out / DATA_PATH.format(**file.place)))
        with atomic_file(paths[-1]) as handle, pq.ParquetWriter(handle, schema) as writer:
            for staged in file.members:
                writer.write_table(pq.read_table(parts[staged.index]), row_group_size=staged.length)
                rows[staged.index] |= {f"data/{name}": number for name, number in file.place.items()}
    return paths


def _write_videos(out: Path, staging: Staging, key: str, limit_mb: float, rows: list[dict[str, Any]]) -> None:
    """Videos of another encoder, after a change of version while the data set grew, get files of their own."""
    parts = [staging.video(staged.index, key) for staged in staging.episodes]
    sizes, kinds = [part.stat().st_size for part in parts], [stream_setup(part) for part in parts]
    for file in _grouped(staging.episodes, sizes, limit_mb, kinds):
        with atomic_file(_made(out / VIDEO_PATH.format(video_key=key, **file.place))) as handle:
            join_videos([parts[staged.index] for staged in file.members], handle, fps=staging.fps)
        start = 0
        for staged in file.members:
            end = start + staged.length
            rows[staged.index] |= {f"videos/{key}/{name}": number for name, number in file.place.items()}
            rows[staged.index][f"videos/{key}/from_timestamp"] = start / staging.fps
            rows[staged.index][f"videos/{key}/to_timestamp"] = end / staging.fps
            start = end


def _write_episodes(out: Path, staging: Staging, limit_mb: float, rows: list[dict[str, Any]]) -> None:
    """Where each episode lies, and its statistics."""
    features = {**staging.features, **INDEX}
    kinds = statistic_types(features)
    for staged, row in zip(staging.episodes, rows, strict=True):
        row |= _statistic_columns(staged.statistics, features)
    size = len(json.dumps(rows[0]))  # a row takes no more in the table than as text
    for file in _grouped(staging.episodes, [size] * len(rows), limit_mb):
        place = {f"meta/episodes/{name}": number for name, number in file.place.items()}
        members = [rows[staged.index] | place for staged in file.members]
        schema = pa.schema([(name, kinds.get(name) or _index_type(name)) for name in members[0]])
        with atomic_file(_made(out / EPISODES / f"{_FILE.format(**file.place)}.parquet")) as handle:
            pq.write_table(pa.Table.from_pylist(members, schema=schema), handle)


def _index_type(name: str) -> pa.DataType:
    if name == "tasks":
        return pa.list_(pa.string())
    return pa.float64() if name.endswith("timestamp") else pa.int64()


def statistic_types(features: Mapping[str, Feature]) -> dict[str, pa.DataType]:
    """Types of the columns stats/<feature>/<statistic>."""
    types = {}
    for key, feature in features.items():
        for name in NAMES if feature.dtype != "string" else ():
            number = pa.from_numpy_dtype(typed(np.zeros(1), name, feature).dtype)
            kind = pa.list_(number)
            if feature.is_picture and name != "count":
                kind = pa.list_(pa.list_(kind))
            types[f"stats/{key}/{name}"] = kind
    return types


def _statistic_columns(statistics: Statistics, features: Mapping[str, Feature]) -> dict[str, Any]:
    table = statistics.to_json(features)
    return {f"stats/{key}/{name}": table[key][name] for key in features if key in table for name in NAMES}


def write_tasks(out: Path, staging: Staging) -> None:
    """meta/tasks.parquet as pandas writes a frame whose index are the instructions."""
    entry = {"metadata": None, "pandas_type": "int64", "numpy_type": "int64", "name": "task_index"}
    index = {**entry, "pandas_type": "unicode", "numpy_type": "object", "name": None}
    names = {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object"}
    pandas = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [{**names, "metadata": {"encoding": "UTF-8"}}],
        "columns": [{**entry, "field_name": "task_index"}, {**index, "field_name": "__index_level_0__"}],
        "attributes": {},
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    schema = pa.schema(
        [("task_index", pa.int64()), ("__index_level_0__", pa.string())],
        metadata={"pandas": json.dumps(pandas)},
    )
    table = pa.table([list(staging.tasks.values()), list(staging.tasks)], schema=schema)
    with atomic_file(_made(out / TASKS)) as handle:
        pq.write_table(table, handle)


def whole_statistics(staging: Staging, tables: Sequence[Path]) -> Statistics:
    """Of all episodes together: numbers measured anew on all rows, pictures from the counts of all.

    Args:
        staging: The episodes.
        tables: The files of all their rows.
    """
    rows: dict[str, Row] = {}
    for key, feature in {**staging.features, **INDEX}.items():
        if feature.is_picture:
            counts = (staged.pictures[key] for staged in staging.episodes)
            rows[key] = sum(counts, start=PictureCounts()).statistics()
        elif feature.dtype != "string":
            columns = (
                column_values(read_columns(p, [key])[key], feature, where=f"{p}: {key}") for p in tables
            )
            rows[key] = number_statistics(np.concatenate(list(columns)))
    return Statistics(rows)


def info_json(staging: Staging, robot_type: str, version: str) -> dict[str, Any]:
    """What info.json of either version says, but for paths and sizes."""
    fps = int(staging.fps) if staging.fps.is_integer() else staging.fps
    features = {key: feature.to_json() for key, feature in {**staging.features, **INDEX}.items()}
    for key, feature in staging.features.items():
        if feature.dtype == "video":
            features[key]["info"] = {
                "video.height": feature.shape[0],
                "video.width": feature.shape[1],
                "video.codec": CODEC,
                "video.pix_fmt": PIXEL_FORMAT,
                "video.is_depth_map": False,
                "video.fps": fps,
                "video.channels": 3,
                "has_audio": False,
            }
    return {
        "codebase_version": version,
        "robot_type": robot_type,
        "total_episodes": len(staging.episodes),
        "total_frames": staging.frames,
        "total_tasks": len(staging.tasks),
        "chunks_size": CHUNKS_SIZE,
        "fps": fps,
        "splits": {"train": f"0:{len(staging.episodes)}"},
        "features": features,
    }


def _paths(staging: Staging, data_mb: float, video_mb: float) -> dict[str, Any]:
    has_video = any(feature.dtype == "video" for feature in staging.features.values())
    sizes = {
        "data_files_size_in_mb": max(1, round(data_mb)),
        "video_files_size_in_mb": max(1, round(video_mb)),
    }
    return {**sizes, "data_path": DATA_PATH, "video_path": VIDEO_PATH if has_video else None}


def write_json(path: Path, content: Any) -> None:
    """A JSON file that is whole or absent."""
    with atomic_file(_made(path)) as handle:
        handle.write(f"{json.dumps(content, indent=4, ensure_ascii=False)}\n".encode())


def _made(path: Path) -> Path:
    """The path, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
