"""What `polydit calibrate` samples of a policy: chunks of actions, one observation at a time, as a robot asks for them.

Shapes: h actions in a chunk, w numbers in an action of the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from diffusers import ModelMixin
from jaxtyping import Float
from torch import Tensor

from polydit.core.cli.settings import filled, refuse_new_noise
from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_generator
from polydit.core.sampling.calibration import Setting
from polydit.robopolicy.checkpoint import Checkpoint
from polydit.robopolicy.data.readers import good_episodes, read_dataset
from polydit.robopolicy.envs import instruction, tasks
from polydit.robopolicy.envs.protocol import Observation
from polydit.robopolicy.episode import IMAGES, STATE, TASK, Episode
from polydit.robopolicy.evaluate.choice import PolicyChoice
from polydit.robopolicy.evaluate.fit import check_fit, check_tasks
from polydit.robopolicy.evaluate.plan import FIRST_SEED
from polydit.robopolicy.evaluate.workers import Scene
from polydit.robopolicy.policy import RobotPolicy

_PLAYED = 20  # actions before the observation that is taken: the robot is on its way


@dataclass(frozen=True, slots=True, eq=False)
class ChunkSampler:
    """Chunks of one policy.

    Args:
        policy: Plans them.
        observations: For which.
        noise: A start for each.
        one_by_one: False plans all together.
    """

    policy: RobotPolicy
    observations: Sequence[Observation]
    noise: Float[Tensor, "n h w"]
    one_by_one: bool = True

    @property
    def network(self) -> ModelMixin:
        """What is called in every step."""
        network: ModelMixin = self.policy.network
        return network

    @property
    def solvers(self) -> tuple[str, ...]:
        """The policy's own."""
        return (self.policy.model.solver,)

    @property
    def default(self) -> Setting:
        """The checkpoint's."""
        steps = self.policy.config.num_steps or self.policy.model.num_steps
        return Setting(num_steps=steps, solver=self.policy.model.solver, cache=self.policy.cache)

    def __call__(self, setting: Setting) -> list[Float[Tensor, "h w"]]:
        """Normalised actions; one by one, a cache's run is one chunk, as it is on a robot."""
        size = 1 if self.one_by_one else len(self.observations)
        planned = [
            self.policy.sample(
                self.observations[first : first + size],
                self.noise[first : first + size],
                num_steps=setting.num_steps,
                cache=setting.cache,
            ).cpu()
            for first in range(0, len(self.observations), size)
        ]
        return list(torch.cat(planned))

    def together(self) -> ChunkSampler:
        """See `polydit.core.sampling.calibration.OneByOne`."""
        return replace(self, one_by_one=False)


def sampler(
    checkpoint: str | None, num_samples: int, request: Mapping[str, str]
) -> tuple[Checkpoint, ChunkSampler]:
    """The hook of `polydit calibrate`.

    Args:
        checkpoint: As `robopolicy evaluate --checkpoint` takes it.
        num_samples: Chunks of each run.
        request: May have `env`, `task` and `seed`, as the options of `robopolicy evaluate`; or `data`, a data set
            whose observations are taken in place of a simulator's.

    Raises:
        InputError: The request has another key or a value that is none, the policy knows no task of the environment,
            or it draws new noise in every step.
        CheckpointError: There is no such checkpoint, or it does not fit the environment.
        MissingExtraError: The simulator is not installed.
    """
    asked = filled(request, env="metaworld", task="", seed=FIRST_SEED, data="")
    found = Checkpoint.find(checkpoint)
    policy = RobotPolicy.from_pretrained(found.path)
    if policy.model.solver == "ddpm":
        refuse_new_noise(found, "success")
    if asked["data"]:
        seen = _recorded(Path(asked["data"]), policy)
    else:
        seen = _simulated(found, policy, asked["env"], asked["task"], asked["seed"])
    observations = list(islice(seen, num_samples))
    if len(observations) < num_samples:
        problem = f"only {len(observations)} episodes of {asked['data']} can be read"
        raise InputError(problem, where="--num-samples", expected=f"{len(observations)} or less")
    noise = [policy.draw(item_generator(asked["seed"], f"{index}")) for index in range(num_samples)]
    return found, ChunkSampler(policy, observations, torch.stack(noise))


def _simulated(
    found: Checkpoint, policy: RobotPolicy, env: str, task: str, seed: int
) -> Iterator[Observation]:
    """What the policy sees on its way: a layout of each of its tasks, then another one of each, without an end."""
    trained = [name for name in tasks(env) if instruction(env, name) in policy.instructions.texts]
    names = [task] if task else trained
    if not names:
        raise InputError(f"{found.name} was trained on no task of {env}", where="--request env")
    choice = PolicyChoice.of(found)
    check_tasks(choice, env, names)
    scene = Scene(env=env, policy=choice)
    while True:
        for name in names:
            with scene.open(name) as simulator:
                seen = simulator.reset(seed)
                check_fit(choice, simulator, seen)
                policy.reset(seed)
                for _ in range(_PLAYED):
                    seen = simulator.step(policy.select_action(seen)).observation
            yield seen
        seed += 1


def _recorded(path: Path, policy: RobotPolicy) -> Iterator[Observation]:
    """The frame in the middle of each episode of a data set."""
    for episode in good_episodes(read_dataset(path)):
        seen = _observed(episode, len(episode) // 2, policy.config.cameras)
        policy.check(seen)
        yield seen


def _observed(episode: Episode, frame: int, cameras: Sequence[str]) -> Observation:
    if lacking := [camera for camera in cameras if camera not in episode.images]:
        raise InputError(f"there are no pictures of {lacking[0]}", where=episode.where)
    pictures = {IMAGES + camera: episode.images[camera][frame] for camera in cameras}
    return {STATE: episode.state[frame], TASK: episode.task, **pictures}
