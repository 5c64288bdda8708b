"""Which policy acts: a checkpoint with its settings, or a baseline. Nothing heavy until it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from polydit.core.errors import InputError
from polydit.core.sampling.cache.named import AUTO, NONE
from polydit.core.sampling.cache.suggested import settled, suggestion

if TYPE_CHECKING:
    from polydit.core.sampling.cache.report import CacheReport
    from polydit.robopolicy.checkpoint import Checkpoint
    from polydit.robopolicy.envs.protocol import Env
    from polydit.robopolicy.evaluate.rollout import Policy

Baseline = Literal["expert", "random", "zero"]
BASELINES: Final[tuple[Baseline, ...]] = ("expert", "random", "zero")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChoice:
    """What acts; small, since it is sent to every worker process.

    Args:
        name: What the user calls it.
        baseline: One of `BASELINES`; None = the checkpoint in `folder`.
        folder: The checkpoint's folder.
        facts: What the checkpoint says of itself: sizes, frame rate, cameras, instructions.
        execute: Actions of a chunk that are executed before the policy plans again; 1 for a baseline.
        num_steps: Network calls per chunk; 0 = the model's own default.
        cache: Which of them are forecast; "none" for a baseline.
        device: Where the network computes.
    """

    name: str
    baseline: Baseline | None = None
    folder: Path | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    execute: int = 1
    num_steps: int = 0
    cache: str = NONE
    device: str = "cpu"

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        *,
        execute: int | None = None,
        num_steps: int | None = None,
        cache: str = AUTO,
    ) -> PolicyChoice:
        """A checkpoint, with its own settings where None or "auto" is given.

        Raises:
            CheckpointError: It cannot be read, or suggests a cache that does not exist.
        """
        index = checkpoint.index
        steps = index["num_steps"] if num_steps is None else num_steps
        return cls(
            name=checkpoint.name,
            folder=checkpoint.path,
            facts=checkpoint.facts(),
            execute=index["execute"] if execute is None else execute,
            num_steps=steps,
            cache=settled(cache, suggestion(index, steps), checkpoint.path),
        )

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras whose pictures it sees."""
        return tuple(self.facts.get("cameras", ()))

    def load(self, on_cache: Callable[[CacheReport], object] | None = None) -> Callable[[Env], Policy]:
        """Loads the weights, once for all environments; gives what finds the policy for an environment.

        Args:
            on_cache: Told after every chunk what the cache did.

        Raises:
            CheckpointError: The folder is no policy, or damaged.
            InputError: A chunk has fewer actions than are to be executed, or the cache cannot serve the network.
        """
        if self.baseline is not None:
            from polydit.robopolicy.evaluate.baselines import make_baseline

            name = self.baseline
            return lambda env: make_baseline(name, env)
        assert self.folder is not None, "neither a baseline nor a checkpoint"
        import torch

        from polydit.core.nn.packed import pack_linears
        from polydit.core.sampling.cache.named import cache_for
        from polydit.robopolicy.policy import RobotPolicy

        torch.set_num_threads(1)  # processes side by side are the parallelism
        policy = RobotPolicy.from_pretrained(self.folder)
        if not 1 <= self.execute <= policy.model.horizon:
            expected = f"1 to {policy.model.horizon}, the length of its chunks"
            raise InputError(
                f"the policy {self.name} cannot execute {self.execute} actions", expected=expected
            )
        cache_for(policy.network, self.cache, self.num_steps or policy.model.num_steps)
        policy.register_to_config(execute=self.execute, num_steps=self.num_steps, cache=self.cache)
        policy.on_cache = on_cache
        policy.to(self.device)
        pack_linears(policy.network)
        return lambda env: policy
