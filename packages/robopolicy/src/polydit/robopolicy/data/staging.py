"""A data set while it grows: each episode as files of its own, so that a kill loses at most the one in work.

The folder `.writing` of a data set holds, for episode 12, 000012.parquet with its rows, a video per camera, and at last
000012.json, which is what makes the episode exist. When all are there they become the data set's files (`write_v3`,
`write_v21`), meta/info.json last, and the folder goes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file, safe_name, sync_folder
from polydit.robopolicy.data.encoding import encode_video
from polydit.robopolicy.data.features import INDEX, Feature
from polydit.robopolicy.data.info import load_json
from polydit.robopolicy.data.pictures import encode_png
from polydit.robopolicy.data.statistics import PictureCounts, Row, Statistics, counted, number_statistics
from polydit.robopolicy.data.tables import arrow_column, row_schema
from polydit.robopolicy.episode import ACTION, IMAGES, STATE, Episode


@dataclass(frozen=True, kw_only=True)
class Staged:
    """An episode that is written.

    Args:
        index: Its number.
        length: Its frames.
        task: Its instruction.
        statistics: Of its columns and cameras.
        pictures: Per camera key, how often which value occurs.
        note: What its maker wants to remember, such as its seed.
    """

    index: int
    length: int
    task: str
    statistics: Statistics
    pictures: Mapping[str, PictureCounts]
    note: Mapping[str, Any] = field(default_factory=dict)


class Staging:
    """The folder in which episodes wait.

    Args:
        folder: The folder; it exists.
        fps: Frames per second.
        features: Columns of the data set, without the index columns.
    """

    def __init__(self, folder: Path, *, fps: float, features: Mapping[str, Feature]) -> None:
        self.folder, self.fps, self.features = folder, fps, dict(features)
        self.episodes: list[Staged] = []
        self.tasks: dict[str, int] = {}

    @property
    def frames(self) -> int:
        """Frames of all episodes so far."""
        return sum(episode.length for episode in self.episodes)

    def table(self, index: int) -> Path:
        """The rows of an episode."""
        return self.folder / f"{index:06d}.parquet"

    def video(self, index: int, key: str) -> Path:
        """The video of an episode and camera."""
        return self.folder / f"{index:06d}-{safe_name(key)}.mp4"

    def load(self) -> None:
        """Finds the episodes that an earlier call left, and forgets the one that it was killed in.

        Raises:
            InputError: A file of ours is damaged.
        """
        while (path := self._record(len(self.episodes))).is_file():
            entry = load_json(path)
            try:
                self._remember(
                    Staged(
                        index=len(self.episodes),
                        length=entry["length"],
                        task=entry["task"],
                        statistics=Statistics.from_json(entry["statistics"], where=str(path)),
                        pictures={key: _counts(value) for key, value in entry["pictures"].items()},
                        note=entry["note"],
                    )
                )
            except (KeyError, TypeError, ValueError) as error:
                hint = "Start again with --overwrite"
                raise InputError("a record of ours is damaged", where=str(path), hint=hint) from error

    def add(self, episode: Episode, columns: Mapping[str, np.ndarray], note: Mapping[str, Any]) -> Staged:
        """Writes an episode; it exists when this returns.

        Args:
            episode: The episode, for its task and pictures.
            columns: Its columns of numbers and text, as the features say.
            note: What to remember of it.
        """
        index, length = len(self.episodes), len(episode)
        columns = {
            **columns,
            **self._index_columns(index, length, self.tasks.get(episode.task, len(self.tasks))),
        }
        rows: dict[str, Row] = {k: number_statistics(v) for k, v in columns.items() if v.dtype.kind in "biuf"}
        pictures, stills = self._write_pictures(index, episode)
        with atomic_file(self.table(index)) as handle:
            pq.write_table(self._arrow(columns, stills), handle)
        rows |= {key: counts.statistics() for key, counts in pictures.items()}
        staged = Staged(
            index=index,
            length=length,
            task=episode.task,
            statistics=Statistics(rows),
            pictures=pictures,
            note=note,
        )
        with atomic_file(self._record(index)) as handle:
            handle.write(json.dumps(_record(staged)).encode())
        sync_folder(self.folder)
        self._remember(staged)
        return staged

    def _remember(self, staged: Staged) -> None:
        self.episodes.append(staged)
        self.tasks.setdefault(staged.task, len(self.tasks))

    def _record(self, index: int) -> Path:
        return self.folder / f"{index:06d}.json"

    def _index_columns(self, index: int, length: int, task: int) -> dict[str, np.ndarray]:
        frames = np.arange(length)
        return {
            "timestamp": (frames / self.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(length, index),
            "index": frames + self.frames,
            "task_index": np.full(length, task),
        }

    def _write_pictures(
        self, index: int, episode: Episode
    ) -> tuple[dict[str, PictureCounts], dict[str, list[dict[str, Any]]]]:
        """Videos to files, other pictures as rows for the table."""
        counts: dict[str, PictureCounts] = {}
        stills: dict[str, list[dict[str, Any]]] = {}
        for key, feature in self.features.items():
            if not feature.is_picture:
                continue
            counts[key] = PictureCounts()
            frames = counted(episode.images[key.removeprefix(IMAGES)], len(episode), counts[key])
            if feature.dtype == "image":
                stills[key] = [
                    {"bytes": encode_png(picture), "path": f"frame-{number:06d}.png"}
                    for number, picture in enumerate(frames)
                ]
                written = len(stills[key])
            else:
                temporary = self.video(index, key).with_suffix(".tmp")
                written = encode_video(temporary, frames, fps=self.fps, shape=feature.shape)
                temporary.replace(self.video(index, key))
            if written != len(episode):
                problem = f"{key} gave {written} pictures"
                raise InputError(problem, where=episode.where, expected=f"{len(episode)}")
        return counts, stills

    def _arrow(
        self, columns: Mapping[str, np.ndarray], stills: Mapping[str, list[dict[str, Any]]]
    ) -> pa.Table:
        """The episode's rows in LeRobot's order of columns: its own, then the index columns."""
        schema = row_schema({**self.features, **INDEX})
        arrays = [
            pa.array(stills[field.name], type=field.type)
            if field.name in stills
            else arrow_column(columns[field.name], {**self.features, **INDEX}[field.name])
            for field in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)


def columns_of(episode: Episode, features: Mapping[str, Feature]) -> dict[str, np.ndarray]:
    """The columns of an episode in the dtypes of the features.

    Raises:
        InputError: A column or camera is missing, is not in the features, or has another shape.
    """
    given: dict[str, np.ndarray] = {STATE: episode.state, ACTION: episode.action, **episode.extra}
    if STATE not in features and not episode.state.shape[1]:
        del given[STATE]  # the source has none
    cameras = {IMAGES + camera: frames for camera, frames in episode.images.items()}
    if set(features) != {*given, *cameras}:
        missing, surplus = set(features) - {*given, *cameras}, {*given, *cameras} - set(features)
        problem = f"lacks {sorted(missing)}" if missing else f"has {sorted(surplus)} that the features lack"
        raise InputError(problem, where=episode.where)
    for key, frames in cameras.items():
        if tuple(frames.shape) != features[key].shape:
            problem = f"{key} has the shape {list(frames.shape)}"
            raise InputError(problem, where=episode.where, expected=f"{list(features[key].shape)}")
    return {key: _column(rows, features[key], key, episode.where) for key, rows in given.items()}


def _column(rows: np.ndarray, feature: Feature, key: str, where: str) -> np.ndarray:
    if rows.shape[1:] not in (feature.shape, feature.row_shape):
        problem = f"{key} has the shape {list(rows.shape[1:] or (1,))}"
        raise InputError(problem, where=where, expected=f"{list(feature.shape)}")
    if feature.dtype == "string":
        return rows.astype(str)
    if rows.dtype.kind not in "biuf":
        raise InputError(f"{key} holds {rows.dtype}", where=where, expected=feature.dtype)
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        raise InputError(f"{key} holds a value that is no finite number", where=where)
    return rows.astype(feature.dtype)


def _record(staged: Staged) -> dict[str, Any]:
    pictures = {k: {"counts": c.counts.tolist(), "pictures": c.pictures} for k, c in staged.pictures.items()}
    return {
        "length": staged.length,
        "task": staged.task,
        "statistics": staged.statistics.to_json(),
        "pictures": pictures,
        "note": dict(staged.note),
    }


def _counts(entry: Mapping[str, Any]) -> PictureCounts:
    counts = np.array(entry["counts"], dtype=np.int64)
    if counts.shape != (3, 256):
        raise ValueError(f"counts of the shape {counts.shape}")
    return PictureCounts(counts, int(entry["pictures"]))
