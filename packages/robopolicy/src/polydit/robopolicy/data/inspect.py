"""What is in a data set, and everything that is wrong with it, episode by episode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from polydit.core.errors import InputError
from polydit.robopolicy.data.info import DatasetInfo
from polydit.robopolicy.data.readers import Dataset, measure, number_of_episodes
from polydit.robopolicy.data.statistics import Statistics
from polydit.robopolicy.episode import ACTION, STATE, Episode

_SHOWN_TASKS, _SHOWN_NUMBERS = 20, 32
_ROUNDING = 1e-3  # of a number's range: what stored statistics may differ by, as they were rounded or sampled
_COMPARED = ("min", "max", "mean")


class Problem(NamedTuple):
    """Something wrong; `episode` is None where it concerns the whole."""

    episode: int | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found.

    Attributes:
        path: Where the data set lies.
        info: What it says of itself.
        episodes: How many it has.
        lengths: Frames of those that can be read.
        tasks: How many of these have which instruction.
        statistics: Measured on these; None if there are none.
        problems: What is wrong.
    """

    path: str
    info: DatasetInfo
    episodes: int
    lengths: Sequence[int]
    tasks: Counter[str]
    statistics: Statistics | None
    problems: Sequence[Problem] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Duration of all that can be read."""
        return sum(self.lengths) / self.info.fps

    def to_json(self) -> dict[str, Any]:
        """All of it, for a program."""
        return {
            "path": self.path,
            "version": self.info.version,
            "robot_type": self.info.robot_type,
            "fps": self.info.fps,
            "episodes": self.episodes,
            "bad_episodes": len({p.episode for p in self.problems if p.episode is not None}),
            "frames": sum(self.lengths),
            "features": {key: feature.to_json() for key, feature in self.info.features.items()},
            "left_out": dict(self.info.left_out),
            "tasks": dict(self.tasks.most_common()),
            "statistics": self.statistics.to_json(self.info.features) if self.statistics else {},
            "problems": [problem._asdict() for problem in self.problems],
        }

    def lines(self, show_problems: int = 20) -> list[str]:
        """The same for a person."""
        robot = f", robot {self.info.robot_type}" if self.info.robot_type else ""
        lines = [f"{self.info.version}{robot}, {self.info.fps:g} frames per second"]
        span = f", {min(self.lengths)} to {max(self.lengths)} frames each" if self.lengths else ""
        lines += [f"{self.episodes} episodes, {sum(self.lengths)} frames ({self.seconds:.1f} s){span}", ""]
        lines += self._feature_lines() + self._task_lines() + self._statistic_lines()
        if self.problems:
            lines += [
                "",
                f"problems, the first {min(show_problems, len(self.problems))} of {len(self.problems)}",
            ]
            lines += [f"  {problem.reason}" for problem in self.problems[:show_problems]]
        return lines

    def _feature_lines(self) -> list[str]:
        width = max(map(len, self.info.features))
        lines = [
            f"  {key:<{width}}  {feature.dtype:<7}  {list(feature.shape)}"
            for key, feature in self.info.features.items()
        ]
        return [
            "features",
            *lines,
            *(f"  {key} is not read: {why}" for key, why in self.info.left_out.items()),
        ]

    def _task_lines(self) -> list[str]:
        lines = [f"  {count:>6}  {task or '(none)'}" for task, count in self.tasks.most_common(_SHOWN_TASKS)]
        more = len(self.tasks) - _SHOWN_TASKS
        return ["", "episodes by task", *lines, *([f"  and {more} more tasks"] if more > 0 else [])]

    def _statistic_lines(self) -> list[str]:
        names = ("min", "q01", "mean", "q99", "max", "std")
        lines = []
        for key in (STATE, ACTION):
            if self.statistics is None or key not in self.statistics:
                continue
            row = self.statistics[key]
            lines += ["", f"{key:<24}" + "".join(f"{name:>11}" for name in names)]
            labels = self.info.features[key].names or ()
            for place in range(min(len(row["mean"]), _SHOWN_NUMBERS)):
                label = f"  {place} {labels[place] if place < len(labels) else ''}"[:23]
                lines.append(f"{label:<24}" + "".join(f"{row[name][place]:>11.4g}" for name in names))
            more = len(row["mean"]) - _SHOWN_NUMBERS
            lines += [f"  and {more} more"] if more > 0 else []
        return lines


def inspect_dataset(
    dataset: Dataset,
    *,
    decode: bool = False,
    limit: int | None = None,
    watch: Callable[[int], object] = lambda index: None,
) -> Inspection:
    """Reads every episode.

    Args:
        dataset: The data set.
        decode: Decode every picture too, not only count them.
        limit: At most this many episodes.
        watch: Called with the number of each episode when it was read.
    """
    count = number_of_episodes(dataset, limit)
    good: list[Episode] = []
    problems = [Problem(None, reason) for reason in dataset.problems]
    for index in range(count):
        try:
            good.append(_read(dataset, index, decode))
        except InputError as error:
            problems.append(Problem(index, str(error)))
        watch(index)
    statistics = measure(good) if good else None
    if statistics and dataset.stored and len(good) == len(dataset):
        problems += [Problem(None, reason) for reason in _differences(dataset.stored, statistics)]
    return Inspection(
        path=str(dataset.path),
        info=dataset.info,
        episodes=len(dataset),
        lengths=[len(episode) for episode in good],
        tasks=Counter(episode.task for episode in good),
        statistics=statistics,
        problems=problems,
    )


def _read(dataset: Dataset, index: int, decode: bool) -> Episode:
    episode = dataset[index]
    for frames in episode.images.values() if decode else ():
        for _ in frames:
            pass
    return episode


def _differences(stored: Statistics, measured: Statistics) -> list[str]:
    """Where the statistics that a data set brings are not those of its data: a policy would be normalised wrongly."""
    found = []
    for key in (STATE, ACTION):
        if key not in stored or key not in measured:
            continue
        room = _ROUNDING * (measured[key]["max"] - measured[key]["min"]) + 1e-6
        for name in _COMPARED:
            wrong = np.flatnonzero(np.abs(stored[key][name] - measured[key][name]) > room)
            if len(wrong):
                place = int(wrong[0])
                said, there = stored[key][name][place], measured[key][name][place]
                found.append(f"the stored {name} of {key}[{place}] is {said:.6g}, the data have {there:.6g}")
    return found
