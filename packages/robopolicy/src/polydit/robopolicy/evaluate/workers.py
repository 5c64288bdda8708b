"""Episodes in worker processes: each loads the policy once, keeps one environment at a time, and may die."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from polydit.core.errors import CheckpointError, MissingExtraError
from polydit.core.jobs import ItemFailure, ItemResult, ManifestRecord, RunFolder, Tally, run_stream
from polydit.core.jobs.crew import Crew, Died
from polydit.core.jobs.memory import peak_memory_mb
from polydit.core.sampling.cache.named import NONE
from polydit.core.sampling.cache.report import CacheReport, CacheTally, CacheWarning
from polydit.robopolicy.envs import make_env
from polydit.robopolicy.envs.protocol import Env
from polydit.robopolicy.envs.rendering import RenderConfig
from polydit.robopolicy.evaluate.choice import PolicyChoice
from polydit.robopolicy.evaluate.fit import check_fit
from polydit.robopolicy.evaluate.plan import EvaluationPlan, PlannedEpisode
from polydit.robopolicy.evaluate.rollout import Rollout, rollout
from polydit.robopolicy.evaluate.videos import VideoWriter

VIDEO, TRACE = ".mp4", ".csv"
_MEASURED = 50  # steps

Outcome = ItemResult | ItemFailure
Play = Callable[[PlannedEpisode], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What every episode has in common; small, since it is sent to every worker process.

    Args:
        env: Name of the environment.
        policy: What acts.
        max_steps: Give up after so many steps; None = the environment's own limit.
        filming: Some episodes are filmed.
        model: Name of what acts, written into the videos.
    """

    env: str
    policy: PolicyChoice
    max_steps: int | None = None
    filming: bool = False
    model: str = ""

    def open(self, task: str) -> Env:
        """The environment of a task, with the pictures that the policy and the videos need and no others."""
        return make_env(self.env, task, render=self._pictures)

    def check(self, task: str, seed: int) -> None:
        """Finds what is wrong before a policy is loaded.

        Raises:
            CheckpointError: The policy and the environment do not fit.
            MissingExtraError: The simulator is not installed.
            PolyditError: Pictures are needed and cannot be made here.
        """
        with self.open(task) as env:
            check_fit(self.policy, env, env.reset(seed))
            if self.filming:
                env.render()

    def measure(self, task: str, seed: int) -> tuple[float, int]:
        """Seconds per step, the policy's included, by some steps in this process; and an episode's most steps."""
        with self.open(task) as env:
            policy = self.policy.load()(env)
            played = rollout(env, policy, seed, max_steps=min(_MEASURED, self.max_steps or _MEASURED))
            return played.seconds / played.steps, min(env.max_steps, self.max_steps or env.max_steps)

    @property
    def _pictures(self) -> RenderConfig | None:
        if self.policy.cameras:
            side = self.policy.facts["image_size"]
            return RenderConfig(cameras=self.policy.cameras, height=side, width=side)
        return RenderConfig(cameras=()) if self.filming else None


def play_episodes(
    plan: EvaluationPlan,
    scene: Scene,
    folder: RunFolder,
    *,
    workers: int = 1,
    retry_failed: bool = False,
    fail_fast: bool = False,
    on_record: Callable[[ManifestRecord], object] = lambda record: None,
) -> Tally:
    """Runs every episode that the folder does not have yet; each is on the disk as soon as it is over.

    An episode whose process dies is run again, at most twice; then it counts as failed and the others go on.

    Args:
        plan: The episodes.
        scene: What they have in common.
        folder: Where they go.
        workers: Processes side by side; results do not depend on their number.
        retry_failed: Try again what an earlier call recorded as failed.
        fail_fast: Stop at the first episode that breaks off, after recording it.
        on_record: Called with each new line, after it is on the disk.

    Raises:
        MissingExtraError: The simulator is not installed.
        CheckpointError: The policy cannot be loaded.
        PolyditError: Processes die before they are ready, or as `run_stream`.
    """
    with Crew(partial(_stage, scene), workers) as crew:

        def play(episodes: Iterator[PlannedEpisode]) -> Iterator[list[Outcome]]:
            for played in crew.map(episodes):
                yield [_outcome(episode, result) for episode, result in played]

        return run_stream(
            plan, play, folder, retry_failed=retry_failed, fail_fast=fail_fast, on_record=on_record
        )


@contextmanager
def _stage(scene: Scene) -> Iterator[Play]:
    stage = _Stage(scene)
    try:
        yield stage.play
    finally:
        stage.clear()


class _Stage:
    """One process's policy, and the environment of the task that it is at."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._caches = CacheTally()  # of the episode
        warnings.simplefilter("ignore", CacheWarning)  # one for each chunk; said once when all is done
        self._policy_for = scene.policy.load(self._count)
        self._env: Env | None = None

    def play(self, episode: PlannedEpisode) -> Outcome:
        try:
            return self._result(episode)
        except (MissingExtraError, CheckpointError):
            raise  # every episode would fail in the same way
        except Exception as error:  # of the policy or the simulator: the episode breaks off
            self.clear()  # the next one starts afresh
            return _failure(episode, type(error).__name__, str(error) or type(error).__name__)

    def clear(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()

    def _count(self, report: CacheReport) -> None:
        self._caches.add(report)

    def _result(self, episode: PlannedEpisode) -> ItemResult:
        self._caches = CacheTally()
        played, video = self._play(self._env_of(episode), episode)
        return ItemResult(
            **_common(episode),
            files=video | ({TRACE: played.trace()} if episode.traced else {}),
            measures={"task": episode.task, **self._measures(played)},
            seconds=played.seconds,
            peak_memory_mb=peak_memory_mb(),
        )

    def _env_of(self, episode: PlannedEpisode) -> Env:
        if self._env is None or self._env.task != episode.task:
            self.clear()
            self._env = self._scene.open(episode.task)
            check_fit(self._scene.policy, self._env, self._env.reset(episode.seed))
        return self._env

    def _play(self, env: Env, episode: PlannedEpisode) -> tuple[Rollout, dict[str, bytes]]:
        policy, limit = self._policy_for(env), self._scene.max_steps
        if not episode.filmed:
            return rollout(env, policy, episode.seed, max_steps=limit), {}
        comment = f"{self._scene.env} {episode.task}, seed {episode.seed}, policy {self._scene.model}"
        with VideoWriter(env.fps, comment) as video:
            played = rollout(
                env, policy, episode.seed, max_steps=limit, watch=lambda: video.add(env.render())
            )
            return played, {VIDEO: video.finish()}

    def _measures(self, played: Rollout) -> dict[str, Any]:
        return {
            "success": played.success,
            "steps": played.steps,
            "reward": played.reward,
            "inference_ms": round(played.inference_ms(self._scene.policy.execute), 4),
            **({"cache": self._caches.record()} if self._scene.policy.cache != NONE else {}),
        }


def _outcome(episode: PlannedEpisode, result: Outcome | Died) -> Outcome:
    return _failure(episode, "Died", result.reason) if isinstance(result, Died) else result


def _failure(episode: PlannedEpisode, error: str, message: str) -> ItemFailure:
    return ItemFailure(**_common(episode), error=error, message=message, measures={"task": episode.task})


def _common(episode: PlannedEpisode) -> dict[str, Any]:
    return {"id": episode.id, "index": episode.index, "seed": episode.seed}
