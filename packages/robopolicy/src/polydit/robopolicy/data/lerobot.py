"""What LeRobotDataset v3.0 and v2.1 have in common: tables of rows and videos, cut into episodes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from polydit.core.errors import InputError
from polydit.robopolicy.data.features import INDEX, Feature
from polydit.robopolicy.data.info import INFO, DatasetInfo, InfoFile, camera_name
from polydit.robopolicy.data.pictures import TableFrames
from polydit.robopolicy.data.readers import Dataset, good_episodes, measure
from polydit.robopolicy.data.statistics import NAMES, Statistics
from polydit.robopolicy.data.tables import column_values, read_columns
from polydit.robopolicy.data.videos import VideoFrames
from polydit.robopolicy.episode import ACTION, STATE, Episode, FrameSource

_TABLES_KEPT = 4  # numbers of so many files are kept; a file of 100 MB holds hours
_TIME_TOLERANCE = 1e-4  # seconds between a timestamp and frame / fps, as LeRobot's own reader allows


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSpan:
    """Where an episode's pictures lie: a file, and the second in it at which they start."""

    path: Path
    start: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the data set says about an episode.

    Args:
        index: Its number.
        length: Its frames.
        table: The file of its rows.
        videos: Its pictures by key.
    """

    index: int
    length: int
    table: Path
    videos: Mapping[str, VideoSpan]


class LeRobotDataset(Dataset):
    """A LeRobot data set, made by `read_v3` and `read_v21`.

    Args:
        file: Its info.json.
        tasks: Instructions by their index.
        entries: Its episodes, in order.
        stored: Statistics that it brings, or None.

    Raises:
        InputError: It lacks an action, state or action is no vector, or statistics do not fit.
    """

    def __init__(
        self, file: InfoFile, tasks: Mapping[int, str], entries: Sequence[Entry], stored: Statistics | None
    ) -> None:
        self._file, self._tasks, self._entries, self.stored = file, tasks, entries, stored
        self.path = file.root
        self._info = file.info("lerobot", tuple(tasks[index] for index in sorted(tasks)))
        self._frames_in = Counter[Path]()
        for entry in entries:
            self._frames_in.update({span.path: entry.length for span in entry.videos.values()})
        self._tables: OrderedDict[Path, _Table] = OrderedDict()
        self._check_features()
        if stored is not None:
            vectors = {key: file.features[key] for key in (STATE, ACTION) if key in file.features}
            stored.check(vectors, where=str(file.root / "meta"))

    def _check_features(self) -> None:
        where, features = str(self.path / INFO), self.info.features
        if ACTION not in features:
            raise InputError(
                f"has no feature {ACTION!r}", where=where, expected=f"one of {', '.join(features)}"
            )
        for key in (STATE, ACTION):
            if key in features and (len(features[key].shape) != 1 or features[key].dtype not in _VECTORS):
                found = f"{features[key].dtype} {list(features[key].shape)}"
                raise InputError(f"{key} is {found}", where=where, expected="a vector of numbers")

    @property
    def info(self) -> DatasetInfo:
        """What it is."""
        return self._info

    @property
    def problems(self) -> tuple[str, ...]:
        """Totals that do not add up, and the statistics that are missing."""
        found = [
            ("total_episodes", self._file.total_episodes, len(self._entries)),
            ("total_frames", self._file.total_frames, sum(entry.length for entry in self._entries)),
        ]
        return tuple(
            f"info.json says {name} {said}, there are {there}" for name, said, there in found if said != there
        )

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self._entries)

    def __getitem__(self, index: int) -> Episode:
        """One episode, everything checked but the pictures' content.

        Raises:
            InputError: It is bad; the message names file, episode and column.
        """
        entry = self._entries[index]
        table = self._table(entry.table)
        where = f"{entry.table}: episode {entry.index}"
        rows = table.rows(entry.index, entry.length, where)
        columns = {key: self._column(rows, key, feature, where) for key, feature in self._numbers.items()}
        check_times(columns["timestamp"], columns["frame_index"], self.info.fps, where)
        task = self._task(columns["task_index"], where)
        state = columns.get(STATE, np.zeros((entry.length, 0))).reshape(entry.length, -1)
        return Episode(
            index=entry.index,
            fps=self.info.fps,
            task=task,
            state=state.astype(np.float32),
            action=columns[ACTION].reshape(entry.length, -1).astype(np.float32),
            images={camera_name(key): self._frames(key, entry, table) for key in self._cameras},
            extra={key: rows for key, rows in columns.items() if key not in {*INDEX, STATE, ACTION}},
            source=where,
        )

    @cached_property
    def _numbers(self) -> Mapping[str, Feature]:
        """Columns of the tables besides pictures."""
        own = {key: feature for key, feature in self.info.features.items() if not feature.is_picture}
        return {**own, **{key: INDEX[key] for key in ("timestamp", "frame_index", "task_index")}}

    @cached_property
    def _cameras(self) -> tuple[str, ...]:
        return tuple(key for key, feature in self.info.features.items() if feature.is_picture)

    def _table(self, path: Path) -> _Table:
        if path not in self._tables:
            self._tables[path] = _Table(read_columns(path, ["episode_index", *self._numbers]), path)
            while len(self._tables) > _TABLES_KEPT:
                self._tables.popitem(last=False)
        self._tables.move_to_end(path)
        return self._tables[path]

    def _column(self, rows: pa.Table, key: str, feature: Feature, where: str) -> np.ndarray:
        values = column_values(rows[key], feature, where=f"{where}, {key}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0, 0])
            raise InputError(f"{key} holds a value that is no finite number", where=f"{where}, frame {row}")
        return values

    def _task(self, indices: np.ndarray, where: str) -> str:
        if int(indices[0]) not in self._tasks:
            known = f"0..{max(self._tasks, default=-1)}"
            raise InputError(f"its task_index is {indices[0]}", where=where, expected=known)
        return self._tasks[int(indices[0])]

    def _frames(self, key: str, entry: Entry, table: _Table) -> FrameSource:
        feature = self.info.features[key]
        height, width, channels = feature.shape
        shape = (height, width, channels)
        if feature.dtype == "image":
            first, count = table.places[entry.index][0], entry.length
            return TableFrames(
                table=entry.table, key=key, first=first, count=count, shape=shape, root=self.path
            )
        span = entry.videos[key]
        frames = VideoFrames(
            path=span.path,
            start=span.start,
            count=entry.length,
            fps=self.info.fps,
            shape=shape,
            episode=entry.index,
        )
        frames.check(self._frames_in[span.path])
        return frames

    @cached_property
    def statistics(self) -> Statistics:
        """The data set's own where it has all of them, else measured on the episodes that can be read.

        Raises:
            InputError: No episode can be read.
        """
        stored = self.stored or Statistics({})
        complete = {key for key, row in stored.items() if all(name in row for name in NAMES)}
        if {STATE, ACTION} & self.info.features.keys() <= complete:
            return stored
        return Statistics({**stored, **measure(good_episodes(self))})


_VECTORS = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8")


class _Table:
    """The numbers of one file, and which rows are whose."""

    def __init__(self, table: pa.Table, path: Path) -> None:
        self._table = table
        owners = column_values(table["episode_index"], INDEX["episode_index"], where=f"{path}: episode_index")
        starts = np.flatnonzero(np.diff(owners, prepend=owners[:1] - 1))
        counts = np.diff(starts, append=len(owners))
        self.places: dict[int, tuple[int, int]] = {}
        self._torn: set[int] = set()
        for owner, start, count in zip(
            owners[starts].tolist(), starts.tolist(), counts.tolist(), strict=True
        ):
            if owner in self.places:
                self._torn.add(owner)
            self.places[owner] = (start, count)

    def rows(self, index: int, length: int, where: str) -> pa.Table:
        """The rows of an episode.

        Raises:
            InputError: They are not together, or not as many as was declared.
        """
        start, count = self.places.get(index, (0, 0))
        if index in self._torn:
            raise InputError("its rows do not stand together", where=where)
        if count != length or not count:
            raise InputError(
                f"the table has {count} rows of it", where=where, expected=f"{length} as meta says"
            )
        return self._table.slice(start, count)


def check_times(timestamps: Float[np.ndarray, " t"], frames: np.ndarray, fps: float, where: str) -> None:
    """Whether frame k of an episode is frame k and has the time k / fps.

    Raises:
        InputError: Frames are missing or twice, or the times are of another rate.
    """
    expected = np.arange(len(frames))
    if (frames != expected).any():
        row = int(np.flatnonzero(frames != expected)[0])
        raise InputError(f"its frame_index is {frames[row]} at row {row}", where=where, expected=f"{row}")
    times = timestamps.astype(np.float64)
    rounding = times * np.finfo(np.float32).eps
    if (np.abs(times - expected / fps) > _TIME_TOLERANCE + rounding).any():
        step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        found = f"{1 / step:.6g} frames per second" if step > 0 else "no rate at all"
        raise InputError(
            f"its timestamps are of {found}", where=where, expected=f"fps {fps:g} as info.json says"
        )
