"""LeRobotDataset v2.1 and v2.0: a table and a video per camera for every episode."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from polydit.core.errors import InputError
from polydit.robopolicy.data.info import MAX_EPISODES, MAX_JSON_BYTES, InfoFile, load_json
from polydit.robopolicy.data.lerobot import Entry, LeRobotDataset, VideoSpan
from polydit.robopolicy.data.statistics import Statistics, aggregate

EPISODES, TASKS, EPISODES_STATS = "meta/episodes.jsonl", "meta/tasks.jsonl", "meta/episodes_stats.jsonl"
STATS = "meta/stats.json"  # v2.0


def read_v21(file: InfoFile) -> LeRobotDataset:
    """Opens a data set whose info.json was read.

    Raises:
        InputError: Its lists of tasks or episodes are missing, damaged or do not fit.
    """
    root = file.root
    tasks = {_whole(line, "task_index", root / TASKS): str(line.get("task")) for line in _lines(root / TASKS)}
    entries = [_entry(line, file) for line in _lines(root / EPISODES)]
    if len(entries) > MAX_EPISODES:
        raise InputError(
            f"{len(entries)} episodes", where=str(root / EPISODES), expected=f"<= {MAX_EPISODES}"
        )
    if len({entry.index for entry in entries}) < len(entries):
        raise InputError("an episode is listed twice", where=str(root / EPISODES))
    return LeRobotDataset(file, tasks, sorted(entries, key=lambda entry: entry.index), _statistics(root))


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a file of JSON lines."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(
                f"has {path.stat().st_size} bytes", where=str(path), expected=f"<= {MAX_JSON_BYTES}"
            )
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"is no JSON: {error}", where=f"{path}:{number}") from error
        if not isinstance(entry, Mapping):
            raise InputError("is no JSON object", where=f"{path}:{number}")
        yield entry


def _whole(line: Mapping[str, Any], key: str, path: Path) -> int:
    if type(line.get(key)) is not int:
        raise InputError(f"{key} is {line.get(key)!r}", where=str(path), expected="a whole number")
    return int(line[key])


def _entry(line: Mapping[str, Any], file: InfoFile) -> Entry:
    index = _whole(line, "episode_index", file.root / EPISODES)
    place = {"episode_chunk": index // file.chunks_size, "episode_index": index}
    paths = {key: file.path(file.video_path, video_key=key, **place) for key in file.video_keys}
    return Entry(
        index=index,
        length=_whole(line, "length", file.root / EPISODES),
        table=file.path(file.data_path, **place),
        videos={key: VideoSpan(path=path, start=0.0) for key, path in paths.items()},
    )


def _statistics(root: Path) -> Statistics | None:
    """Those of all episodes added up, or those of v2.0 for the whole; None if there are none."""
    if (root / STATS).is_file():
        return Statistics.from_json(load_json(root / STATS), where=str(root / STATS))
    path = root / EPISODES_STATS
    if not path.is_file():
        return None
    rows = [Statistics.from_json(line.get("stats"), where=str(path)) for line in _lines(path)]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    try:
        return Statistics({key: aggregate([row[key] for row in rows if key in row]) for key in keys})
    except (KeyError, ValueError) as error:
        raise InputError(f"statistics of episodes do not fit together: {error}", where=str(path)) from error
