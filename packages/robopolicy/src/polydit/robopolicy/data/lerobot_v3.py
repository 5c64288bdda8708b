"""LeRobotDataset v3.0: many episodes in a file, and a table that says where each of them lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from polydit.core.errors import InputError
from polydit.robopolicy.data.features import Feature
from polydit.robopolicy.data.info import MAX_EPISODES, InfoFile, load_json
from polydit.robopolicy.data.lerobot import Entry, LeRobotDataset, VideoSpan
from polydit.robopolicy.data.statistics import Statistics
from polydit.robopolicy.data.tables import column_values, open_table, read_columns

TASKS, STATS, EPISODES = "meta/tasks.parquet", "meta/stats.json", "meta/episodes"
_TASK_NAMES = ("__index_level_0__", "task")  # of lerobot up to 0.4 and since
_WHOLE, _SECONDS = Feature(dtype="int64", shape=(1,)), Feature(dtype="float64", shape=(1,))
_TEXT = Feature(dtype="string", shape=(1,))


def read_v3(file: InfoFile) -> LeRobotDataset:
    """Opens a data set whose info.json was read.

    Raises:
        InputError: Its tables of tasks or episodes are missing, damaged or do not fit.
    """
    stats = file.root / STATS
    stored = Statistics.from_json(load_json(stats), where=str(stats)) if stats.is_file() else None
    entries = [entry for path in _episode_tables(file.root) for entry in _entries(path, file)]
    entries.sort(key=lambda entry: entry.index)
    for before, entry in pairwise(entries):
        if before.index == entry.index:
            raise InputError(f"episode {entry.index} is listed twice", where=str(file.root / EPISODES))
    return LeRobotDataset(file, _read_tasks(file.root / TASKS), entries, stored)


def _read_tasks(path: Path) -> dict[int, str]:
    with open_table(path) as table:
        names = table.schema_arrow.names
    label = next((name for name in _TASK_NAMES if name in names), "task")
    rows = read_columns(path, ["task_index", label])
    indices = column_values(rows["task_index"], _WHOLE, where=f"{path}: task_index").tolist()
    texts = column_values(rows[label], _TEXT, where=f"{path}: {label}").tolist()
    return dict(zip(indices, texts, strict=True))


def _episode_tables(root: Path) -> list[Path]:
    paths = sorted((root / EPISODES).glob("*/*.parquet"))
    if not paths:
        raise InputError("there is no table of episodes", where=str(root / EPISODES))
    return paths


def _entries(path: Path, file: InfoFile) -> Iterator[Entry]:
    numbers: Mapping[str, Feature] = {
        "episode_index": _WHOLE, "length": _WHOLE, "data/chunk_index": _WHOLE, "data/file_index": _WHOLE,
        **{f"videos/{key}/{name}": kind for key in file.video_keys for name, kind in _VIDEO.items()},
    }  # fmt: skip
    table = read_columns(path, list(numbers))
    if table.num_rows > MAX_EPISODES:
        raise InputError(f"{table.num_rows} episodes", where=str(path), expected=f"<= {MAX_EPISODES}")
    columns = {
        name: column_values(table[name], kind, where=f"{path}: {name}") for name, kind in numbers.items()
    }
    for row in range(table.num_rows):
        yield _entry({name: values[row] for name, values in columns.items()}, file)


_VIDEO = {"chunk_index": _WHOLE, "file_index": _WHOLE, "from_timestamp": _SECONDS}


def _entry(row: Mapping[str, np.generic], file: InfoFile) -> Entry:
    def whole(name: str) -> int:
        return int(row[name])

    table = file.path(
        file.data_path, chunk_index=whole("data/chunk_index"), file_index=whole("data/file_index")
    )
    videos = {}
    for key in file.video_keys:
        chunk, number = whole(f"videos/{key}/chunk_index"), whole(f"videos/{key}/file_index")
        path = file.path(file.video_path, video_key=key, chunk_index=chunk, file_index=number)
        videos[key] = VideoSpan(path=path, start=float(row[f"videos/{key}/from_timestamp"]))
    return Entry(index=whole("episode_index"), length=whole("length"), table=table, videos=videos)
