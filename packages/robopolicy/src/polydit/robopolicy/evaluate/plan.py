"""Which episodes an evaluation runs: tasks times seeds, item by item and without a simulator.

Episode k of a task depends on the task and its own seed alone: not on how many episodes there are, nor on the
other tasks, the workers or the shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from polydit.core.cli.options import Shard

FIRST_SEED: Final = 100_000
"""Demonstrations are recorded from seed 0 upward, so layouts from here on are unseen."""


@dataclass(frozen=True, slots=True)
class PlannedEpisode:
    """One episode to run: an `Item` of the item loop.

    Attributes:
        index: Its place in the run: all first episodes of the tasks, then all second ones, and so on.
        id: Its name, such as "drawer-open-v3-100007".
        seed: Of the layout, and of the policy's noise.
        task: The environment's name of the task.
        filmed: Its pictures are kept as a video.
        traced: Its actions are kept step by step.
    """

    index: int
    id: str
    seed: int
    task: str
    filmed: bool = False
    traced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """The episodes of one call.

    Args:
        tasks: Names of tasks, without repetitions.
        episodes: Per task.
        first_seed: Episode k of every task has the seed first_seed + k.
        videos: Film the first so many episodes of every task.
        traces: Keep the actions of the first so many episodes of every task.
        shard: The part of the run that this call does; None = all of it.
        limit: At most so many episodes of it, the first by their index; None = all.
    """

    tasks: Sequence[str]
    episodes: int
    first_seed: int = FIRST_SEED
    videos: int = 0
    traces: int = 0
    shard: Shard | None = None
    limit: int | None = None

    @property
    def _indices(self) -> range:
        first, step = (self.shard.index, self.shard.count) if self.shard else (0, 1)
        indices = range(first, self.episodes * len(self.tasks), step)
        return indices if self.limit is None else indices[: self.limit]

    def __len__(self) -> int:
        return len(self._indices)

    def episode(self, index: int) -> PlannedEpisode:
        """Episode `index` of the run, from 0."""
        number, place = divmod(index, len(self.tasks))
        task, seed = self.tasks[place], self.first_seed + number
        return PlannedEpisode(
            index=index,
            id=f"{task}-{seed:06d}",
            seed=seed,
            task=task,
            filmed=number < self.videos,
            traced=number < self.traces,
        )

    def __iter__(self) -> Iterator[PlannedEpisode]:
        """Task by task, since a process makes an environment for each task that it comes to."""
        many = len(self.tasks)
        return map(self.episode, sorted(self._indices, key=lambda index: (index % many, index)))
