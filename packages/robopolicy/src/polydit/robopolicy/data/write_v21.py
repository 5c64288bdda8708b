"""The files of a LeRobotDataset v2.1, made from episodes that wait: a table and a video per camera for each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from polydit.core.jobs.files import atomic_file
from polydit.robopolicy.data.features import INDEX
from polydit.robopolicy.data.info import INFO
from polydit.robopolicy.data.lerobot_v21 import EPISODES, EPISODES_STATS, TASKS
from polydit.robopolicy.data.staging import Staging
from polydit.robopolicy.data.statistics import QUANTILES
from polydit.robopolicy.data.write_v3 import CHUNKS_SIZE, info_json, write_json

VERSION = "v2.1"
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


def write_v21(out: Path, staging: Staging, robot_type: str) -> None:
    """Writes all files, meta/info.json last. This version knows no quantiles.

    Args:
        out: Folder of the data set, free of our names.
        staging: The episodes.
        robot_type: Name of the robot.
    """
    cameras = [key for key, feature in staging.features.items() if feature.dtype == "video"]
    for staged in staging.episodes:
        place = {"episode_chunk": staged.index // CHUNKS_SIZE, "episode_index": staged.index}
        _copy(staging.table(staged.index), out / DATA_PATH.format(**place))
        for key in cameras:
            _copy(staging.video(staged.index, key), out / VIDEO_PATH.format(video_key=key, **place))
    episodes = [(staged.index, staged) for staged in staging.episodes]
    _write_lines(out / TASKS, ({"task_index": index, "task": task} for task, index in staging.tasks.items()))
    _write_lines(
        out / EPISODES,
        ({"episode_index": i, "tasks": [staged.task], "length": staged.length} for i, staged in episodes),
    )
    features = {**staging.features, **INDEX}
    statistics = ((i, _without_quantiles(staged.statistics.to_json(features))) for i, staged in episodes)
    _write_lines(out / EPISODES_STATS, ({"episode_index": i, "stats": stats} for i, stats in statistics))
    info = info_json(staging, robot_type, VERSION)
    info |= {
        "total_videos": len(cameras) * len(episodes),
        "total_chunks": (len(episodes) - 1) // CHUNKS_SIZE + 1,
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if cameras else None,
    }
    write_json(out / INFO, info)


def _copy(source: Path, target: Path) -> None:
    """A copy, not a move: what waits stays whole until the data set is."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as content, atomic_file(target) as handle:
        shutil.copyfileobj(content, handle)


def _write_lines(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as handle:
        for entry in entries:
            handle.write(f"{json.dumps(entry, ensure_ascii=False)}\n".encode())


def _without_quantiles(table: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {key: {name: v for name, v in row.items() if name not in QUANTILES} for key, row in table.items()}
