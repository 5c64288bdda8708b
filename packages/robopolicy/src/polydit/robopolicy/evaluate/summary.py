"""What an evaluation found: a row per episode, figures per task and over all of them. The standard library only."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from statistics import fmean
from typing import Any, Final

from polydit.core.figure import Figure
from polydit.core.jobs import ManifestRecord

METHOD: Final = (
    "episodes with a success at any step, one seeded layout each; one that broke off counts as none"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRow:
    """One episode.

    Attributes:
        task: The environment's name of the task.
        seed: Of its layout, and of what the policy drew.
        success: The task was accomplished.
        steps: Until the success, or the end; None if the episode broke off, as for the next three.
        reward: Sum of the rewards.
        seconds: Wall time, with the policy's.
        inference_ms: Milliseconds per chunk that the policy took.
        error: Why the episode broke off; empty if it did not.
    """

    task: str
    seed: int
    success: bool
    steps: int | None
    reward: float | None
    seconds: float | None
    inference_ms: float | None
    error: str = ""

    @classmethod
    def of(cls, record: ManifestRecord) -> EpisodeRow:
        """From a line of the manifest."""
        measures, broke_off = record["measures"], record["status"] == "failed"
        return cls(
            task=measures["task"],
            seed=record["seed"],
            success=not broke_off and measures["success"],
            steps=measures.get("steps"),
            reward=measures.get("reward"),
            seconds=None if broke_off else record["seconds"],
            inference_ms=measures.get("inference_ms"),
            error=record["error"]["message"] if broke_off else "",
        )


@dataclass(frozen=True, eq=False)
class Episodes:
    """The episodes of one task, or of all.

    Args:
        name: Of the task.
        rows: Its episodes, in the order of their seeds.
    """

    name: str
    rows: Sequence[EpisodeRow]

    @property
    def success(self) -> Figure:
        """How many succeeded, of all that were tried."""
        successes = sum(row.success for row in self.rows)
        return Figure(name=self.name, numerator=successes, denominator=len(self.rows), method=METHOD)

    @property
    def broke_off(self) -> list[EpisodeRow]:
        """Episodes without a result."""
        return [row for row in self.rows if row.error]

    @property
    def steps_to_success(self) -> float | None:
        """Mean steps of the successful ones."""
        return _mean(row.steps for row in self.rows if row.success)

    @property
    def reward(self) -> float | None:
        """Mean sum of rewards."""
        return _mean(row.reward for row in self.rows)

    @property
    def inference_ms(self) -> float | None:
        """Mean milliseconds per chunk."""
        return _mean(row.inference_ms for row in self.rows)

    @property
    def steps_per_second(self) -> float | None:
        """Steps of one process in a second of its time, the policy's included."""
        seconds = sum(row.seconds or 0.0 for row in self.rows)
        return sum(row.steps or 0 for row in self.rows) / seconds if seconds else None

    def to_json(self) -> dict[str, Any]:
        """The figures under their names."""
        return {
            "success": self.success.to_json(),
            "broke_off": len(self.broke_off),
            "steps_to_success": self.steps_to_success,
            "reward": self.reward,
            "inference_ms": self.inference_ms,
            "steps_per_second": self.steps_per_second,
        }


@dataclass(frozen=True, eq=False)
class Summary:
    """All episodes of a run.

    Args:
        rows: In the order of the run.
    """

    rows: Sequence[EpisodeRow]

    @classmethod
    def of(cls, records: Iterable[ManifestRecord]) -> Summary:
        """From the lines of a manifest."""
        return cls([EpisodeRow.of(record) for record in records])

    @cached_property
    def tasks(self) -> tuple[Episodes, ...]:
        """The episodes of each task, in the order of the run."""
        by_task: dict[str, list[EpisodeRow]] = {}
        for row in self.rows:
            by_task.setdefault(row.task, []).append(row)
        return tuple(Episodes(task, rows) for task, rows in by_task.items())

    @property
    def all(self) -> Episodes:
        """The episodes of all tasks together."""
        return Episodes("all tasks", self.rows)

    @property
    def mean_over_tasks(self) -> float | None:
        """Mean of the tasks' success rates, each task counting alike."""
        return _mean(task.success.value for task in self.tasks)

    def to_json(self) -> dict[str, Any]:
        """What figures.json holds."""
        return {
            "mean_success_over_tasks": self.mean_over_tasks,
            "all": self.all.to_json(),
            "tasks": {task.name: task.to_json() for task in self.tasks},
        }

    def csv(self) -> bytes:
        """What episodes.csv holds: a line per episode; a truth value is 0 or 1, what is not known is empty."""
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(EpisodeRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(row), "success": int(row.success)} for row in self.rows)
        return text.getvalue().encode()


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
