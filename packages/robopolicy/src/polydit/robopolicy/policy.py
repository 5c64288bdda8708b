"""A trained policy: observations in, actions out, in the units of the robot.

    >>> policy = RobotPolicy.from_pretrained("path/to/policy")
    >>> policy.reset(seed=0)
    >>> action = policy.select_action(observation)

Keys of observations follow LeRobot: "observation.state", "observation.images.<camera>", "task".
Shapes: b observations, s state and a action dimensions, h actions in a chunk, w numbers in an action of the network.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ModelMixin
from jaxtyping import Float
from torch import Tensor

from polydit.core.errors import CheckpointError, InputError, PolyditError
from polydit.core.pipeline import Pipeline
from polydit.core.sampling.cache import Cache, CacheReport
from polydit.core.sampling.cache.named import AUTO, NONE
from polydit.robopolicy.batch import ActionModel, PolicyBatch
from polydit.robopolicy.envs.protocol import Observation
from polydit.robopolicy.episode import IMAGES, STATE, TASK
from polydit.robopolicy.language import Instructions
from polydit.robopolicy.models import NETWORKS, action_model, network_class
from polydit.robopolicy.normalize import Normalizer
from polydit.robopolicy.pictures import to_squares
from polydit.robopolicy.spaces.arms import arm_names, load_arm
from polydit.robopolicy.units import Units

_ARM_FILE = "arm.toml"  # a mapping of the user's own, beside the network


class RobotPolicy(Pipeline):
    """A network that plans chunks of actions, with all that it needs to meet a robot.

    Args:
        network: The trained network.
        normalizer: Scales of state and action, from the training data.
        instructions: Embeddings of the instructions it knows.
        model: "rdt", "mode" or "pad".
        model_settings: Further arguments of the system's class, such as RDT's slots.
        execute: Actions of a chunk that `select_action` gives out before it plans again.
        num_steps: Network calls per chunk; 0 = the model's own default.
        fps: Actions per second of the training data; 0 = unknown.
        robot_type: The robot of the training data, in the words of its data set.
        cameras: Cameras whose pictures it sees, by name.
        image_size: Side in pixels of the square that pictures are scaled to.
        arm: For RDT's unified layout, the robot's mapping into the 128 slots: a name of `arm_names` or a TOML file,
            which is then stored with the policy. Empty = the network takes the robot's numbers as they are.
        cache: Default cache of the network, such as "newton"; each of its runs is one chunk.

    Attributes:
        on_cache: Told after every chunk what the cache did; None = nobody.

    Raises:
        InputError: If `execute` is not within the chunk, or sizes do not fit one another.
    """

    def __init__(
        self,
        network: ModelMixin,
        normalizer: Normalizer,
        instructions: Instructions,
        model: str = "mode",
        model_settings: Mapping[str, Any] | None = None,
        execute: int = 1,
        num_steps: int = 0,
        fps: float = 0.0,
        robot_type: str = "",
        cameras: Sequence[str] = (),
        image_size: int = 64,
        arm: str = "",
        cache: str = NONE,
    ) -> None:
        super().__init__()
        self.on_cache: Callable[[CacheReport], object] | None = None
        self.register_modules(network=network)
        self.normalizer, self.instructions = normalizer, instructions
        self.units = Units(normalizer, load_arm(arm) if arm else None)
        self._arm_file = Path(arm) if arm and arm not in arm_names() else None
        settings = {**(model_settings or {}), **self.units.model_settings}
        self.model: ActionModel = action_model(model, network, **settings)
        self.register_to_config(
            model=model,
            model_settings=settings,
            execute=execute,
            num_steps=num_steps,
            fps=float(fps),
            robot_type=robot_type,
            cameras=list(cameras),
            image_size=image_size,
            arm=_ARM_FILE if self._arm_file else arm,
            cache=cache,
        )
        if not 1 <= execute <= self.model.horizon:
            raise InputError(
                f"execute is {execute}", expected=f"1 to {self.model.horizon}, the chunk's length"
            )
        if self.model.action_dim != self.units.action_size:
            problem = f"the network makes actions of {self.model.action_dim} numbers"
            raise InputError(problem, expected=f"{self.units.action_size}, as the robot's units have")
        self.reset()

    @property
    def components(self) -> dict[str, Any]:
        """What diffusers moves between devices."""
        return {"network": self.network}

    # -----------------------------------------------------------------------------------------------------
    # Acting

    def reset(self, seed: int = 0) -> None:
        """Begin an episode: forget the planned actions, and draw noise from this seed on."""
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._queue: deque[Float[np.ndarray, " a"]] = deque()

    def select_action(self, observation: Observation) -> Float[np.ndarray, " a"]:
        """The next action; plans when the actions to execute of the last chunk are used up.

        Raises:
            InputError: As `check`; the observation is looked at only when there is something to plan.
            PolyditError: If the plan is not finite.
        """
        if not self._queue:
            self._queue.extend(self.predict_action_chunk(observation)[: self.config.execute])
        return self._queue.popleft()

    def predict_action_chunk(self, observation: Observation) -> Float[np.ndarray, "h a"]:
        """A whole plan: finite, in the robot's units, within the range of the training data.

        Raises:
            InputError: As `check`.
            PolyditError: If the plan is not finite.
        """
        return self.plan([observation], self.draw(self._generator)[None])[0]

    def draw(self, generator: torch.Generator) -> Float[Tensor, "h w"]:
        """Standard normal noise for one plan."""
        return torch.randn(self.model.horizon, self.model.action_dim, generator=generator)

    @torch.no_grad()
    def plan(
        self,
        observations: Sequence[Observation],
        noise: Float[Tensor, "b h w"],
        *,
        cache: str | Cache | None = AUTO,
    ) -> Float[np.ndarray, "b h a"]:
        """Plans for several observations at once, from given noise.

        Args:
            observations: What is seen.
            noise: From `draw`.
            cache: Steps that are forecast: a `Cache`, or its name such as "newton"; "auto" = the policy's, None = none.

        Raises:
            InputError: As `check`, or the cache cannot serve the network.
            PolyditError: If a plan is not finite; nothing of it may reach a robot.
        """
        planned = self.sample(observations, noise, num_steps=self.config.num_steps, cache=cache)
        if not bool(planned.isfinite().all()):
            hint = "Was the training stopped by a loss that was no number? Look at its metrics.jsonl"
            raise PolyditError("the network planned an action that is no finite number", hint=hint)
        return self.units.robot_action(planned)

    @torch.no_grad()
    def sample(
        self,
        observations: Sequence[Observation],
        noise: Float[Tensor, "b h w"],
        *,
        num_steps: int = 0,
        cache: str | Cache | None = AUTO,
    ) -> Float[Tensor, "b h w"]:
        """Plans as the network makes them: normalised, not yet within the range of the training data.

        Args:
            observations: What is seen.
            noise: From `draw`.
            num_steps: Network calls; 0 = the model's own default.
            cache: As in `plan`.

        Raises:
            InputError: As in `plan`.
        """
        chosen = self.chosen_cache(cache, num_steps)
        device = next(self.network.parameters()).device  # `device` of diffusers walks through all modules
        batch, start = self.collate(observations).to(device), noise.to(device)
        return self.model.sample(batch, start, num_steps or None, cache=chosen, on_cache=self.on_cache)

    # -----------------------------------------------------------------------------------------------------
    # Observations

    @property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """What an observation must hold: shapes by key; None = any number."""
        pictures: dict[str, tuple[int | None, ...]] = {
            IMAGES + camera: (None, None, 3) for camera in self.config.cameras
        }
        return {STATE: (self.normalizer.state.size,), **pictures}

    def check(self, observation: Observation) -> None:
        """Refuse what is no observation for this policy.

        Raises:
            InputError: Names a key that is missing or has another shape or type, a value that is not finite, or an
                instruction that it does not know.
        """
        for key, shape in self.shapes.items():
            value = observation.get(key)
            if not isinstance(value, np.ndarray):
                there = ", ".join(sorted(observation)) or "nothing"
                raise InputError(
                    f"the observation lacks {key}; it has {there}", expected=f"an array {_words(shape)}"
                )
            if len(value.shape) != len(shape) or any(
                w not in (None, n) for n, w in zip(value.shape, shape, strict=True)
            ):
                raise InputError(f"has the shape {_words(value.shape)}", where=key, expected=_words(shape))
            if key != STATE and value.dtype != np.uint8:
                raise InputError(f"is {value.dtype}", where=key, expected="uint8, red, green, blue")
        if not np.isfinite(observation[STATE]).all():
            raise InputError("holds a value that is no finite number", where=STATE)
        self.instructions.require([self.task(observation)], where=TASK)

    def task(self, observation: Observation) -> str:
        """The observation's instruction; a policy that knows a single one needs none to be given."""
        task = observation.get(TASK)
        if task is None and len(self.instructions.texts) == 1:
            return self.instructions.texts[0]
        if not isinstance(task, str):
            raise InputError(f"the observation lacks {TASK}", expected="the instruction, as text")
        return task

    def collate(self, observations: Sequence[Observation]) -> PolicyBatch:
        """Checked and normalised, as the network takes them.

        Raises:
            InputError: As `check`.
        """
        for observation in observations:
            self.check(observation)
        states = np.stack([np.asarray(o[STATE], dtype=np.float64) for o in observations])
        language, mask = self.instructions.batch([self.task(o) for o in observations])
        return PolicyBatch(
            state=self.units.state(states),
            language=language,
            language_mask=mask,
            control_frequency=torch.full((len(observations),), float(self.config.fps)),
            images=self._pictures(observations) if self.config.cameras else None,
        )

    def _pictures(self, observations: Sequence[Observation]) -> Float[Tensor, "b k 3 y x"]:
        size, keys = self.config.image_size, [IMAGES + camera for camera in self.config.cameras]
        rows = [torch.cat([to_squares(np.asarray(o[key])[None], size) for key in keys]) for o in observations]
        return torch.stack(rows)

    # -----------------------------------------------------------------------------------------------------
    # Files

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write a folder that `from_pretrained` reads: network, normalisation, instructions, settings."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.normalizer.save(folder)
        self.instructions.save(folder)
        if self._arm_file is not None and self._arm_file != folder / _ARM_FILE:
            shutil.copyfile(self._arm_file, folder / _ARM_FILE)
        super().save_pretrained(folder, **options)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> RobotPolicy:
        """Load from a folder that `save_pretrained` wrote.

        Args:
            folder: The policy's folder.
            options: For the network's `from_pretrained`, such as `torch_dtype`.

        Raises:
            CheckpointError: If the folder is no policy, a file of it is damaged, or its parts do not fit.
        """
        folder = Path(folder)
        index = cls._read_index(folder)
        if index.get("model") not in NETWORKS:
            problem = f"the policy's model is {index.get('model')!r}"
            raise CheckpointError(
                problem, where=str(folder / "model_index.json"), expected=" or ".join(NETWORKS)
            )
        network = cls._load(network_class(index["model"]), folder, "network", options)
        settings = {
            key: value for key, value in index.items() if not key.startswith("_") and key != "network"
        }
        settings["arm"] = _stored_arm(folder, settings.get("arm", ""))
        try:
            return cls(network, Normalizer.load(folder), Instructions.load(folder), **settings)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"the settings do not fit ({error})", where=str(folder / "model_index.json")
            ) from error


def _stored_arm(folder: Path, arm: Any) -> str:
    """The name of an arm, or the path of the mapping inside the folder: a policy names no file outside of it."""
    if arm == _ARM_FILE:
        return str(folder / _ARM_FILE)
    if arm and arm not in arm_names():
        raise CheckpointError(f"there is no arm {arm!r}", where=str(folder / "model_index.json"))
    return str(arm)


def _words(shape: Sequence[int | None]) -> str:
    return f"({', '.join('any' if n is None else str(n) for n in shape)})"
