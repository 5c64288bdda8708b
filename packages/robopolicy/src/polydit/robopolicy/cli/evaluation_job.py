"""A call of `robopolicy evaluate`: its options, and everything else that its checkpoint and environment say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from polydit.core.cli.options import Shard
from polydit.core.errors import InputError
from polydit.core.jobs import Manifest
from polydit.core.sampling.cache.named import AUTO
from polydit.robopolicy.envs import instruction, tasks
from polydit.robopolicy.evaluate.choice import Baseline, PolicyChoice
from polydit.robopolicy.evaluate.plan import EvaluationPlan

if TYPE_CHECKING:
    from polydit.core.jobs.manifest import Status
    from polydit.robopolicy.checkpoint import Checkpoint
    from polydit.robopolicy.evaluate.workers import Scene


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationCall:
    """The options of one call, as click gives them."""

    env: str
    task: tuple[str, ...]
    tasks: Literal["all"] | None
    episodes: int
    checkpoint: str | None
    policy: Baseline | None
    execute: int | None
    num_steps: int | None
    cache: str
    max_steps: int | None
    seed: int
    video: int
    plots: int
    report: bool
    out: Path
    overwrite: bool
    workers: int
    device: str
    shard: Shard | None
    limit: int | None
    fail_fast: bool
    retry_failed: bool
    dry_run: bool


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """A call with everything filled in that its checkpoint says.

    Args:
        call: The options.
        policy: What acts.
        plan: The episodes.
        checkpoint: Where the policy comes from; None for a baseline.
    """

    call: EvaluationCall
    policy: PolicyChoice
    plan: EvaluationPlan
    checkpoint: Checkpoint | None

    @property
    def model(self) -> str:
        """The policy's name and digest, for the files themselves."""
        digest = f" sha256:{self.checkpoint.sha256[:12]}" if self.checkpoint else ""
        return self.policy.name + digest

    def scene(self) -> Scene:
        """Loads numpy, and nothing heavier."""
        from polydit.robopolicy.evaluate.workers import Scene

        call = self.call
        return Scene(
            env=call.env,
            policy=self.policy,
            max_steps=call.max_steps,
            filming=call.video > 0,
            model=self.model,
        )

    def missing(self) -> int:
        """How many episodes this call has to run."""
        if self.call.overwrite:
            return len(self.plan)
        manifest = Manifest(self.call.out / "manifest.jsonl")
        done: tuple[Status, ...] = ("ok",) if self.call.retry_failed else ("ok", "failed")
        return sum(manifest.status(episode.id) not in done for episode in self.plan)


def prepare(call: EvaluationCall) -> EvaluationJob:
    """Everything that can be wrong with a call, found before a simulator or a weight is loaded.

    Raises:
        InputError: A task is unknown, options contradict one another, or the policy knows no task of the environment.
        CheckpointError: The checkpoint is none, or does not know a task.
    """
    for name in call.task:
        instruction(call.env, name)
    checkpoint, policy = _chosen(call)
    names = _chosen_tasks(call, policy)
    from polydit.robopolicy.evaluate.fit import check_tasks

    check_tasks(policy, call.env, names)
    plan = EvaluationPlan(
        tasks=names,
        episodes=call.episodes,
        first_seed=call.seed,
        videos=call.video,
        traces=call.plots,
        shard=call.shard,
        limit=call.limit,
    )
    return EvaluationJob(call, policy, plan, checkpoint)


def _chosen(call: EvaluationCall) -> tuple[Checkpoint | None, PolicyChoice]:
    if call.policy is None:
        from polydit.robopolicy.checkpoint import Checkpoint

        checkpoint = Checkpoint.find(call.checkpoint)
        return checkpoint, PolicyChoice.of(
            checkpoint, execute=call.execute, num_steps=call.num_steps, cache=call.cache
        )
    for name, unless in {"checkpoint": None, "execute": None, "num_steps": None, "cache": AUTO}.items():
        if getattr(call, name) != unless:
            option = f"--{name.replace('_', '-')}"
            raise InputError("a baseline has none", where=option, hint=f"Leave out {option} or --policy.")
    return None, PolicyChoice(name=call.policy, baseline=call.policy)


def _chosen_tasks(call: EvaluationCall, policy: PolicyChoice) -> tuple[str, ...]:
    known = tasks(call.env)
    if call.task and call.tasks:
        raise InputError("names all tasks, and --task some", where=f"--tasks {call.tasks}")
    if call.task or call.tasks:
        return tuple(dict.fromkeys(call.task)) or known
    if policy.baseline is not None:
        raise InputError("a baseline has no tasks of its own", hint="Add --task NAME, or --tasks all.")
    trained = tuple(name for name in known if instruction(call.env, name) in policy.facts["instructions"])
    if not trained:
        problem = f"the policy {policy.name} was trained on no task of {call.env}"
        raise InputError(problem, where=f"--env {call.env}", hint="robopolicy info shows its instructions.")
    return trained
