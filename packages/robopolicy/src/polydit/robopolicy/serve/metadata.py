"""What a served policy tells its clients about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from polydit.core.errors import PolyditError
from polydit.robopolicy.episode import IMAGES

if TYPE_CHECKING:
    from polydit.robopolicy.policy import RobotPolicy

_MAX_TASKS = 1000


@runtime_checkable
class ServedPolicy(Protocol):
    """What a server needs of a policy."""

    def check(self, observation: Mapping[str, Any]) -> None:
        """Refuse with InputError what is no observation for it."""
        ...

    def reset(self, seed: int = 0) -> None:
        """Begin an episode; its noise comes from the seed."""
        ...

    def select_action(self, observation: Mapping[str, Any]) -> Float[np.ndarray, " a"]:
        """The next action."""
        ...

    def predict_action_chunk(self, observation: Mapping[str, Any]) -> Float[np.ndarray, "h a"]:
        """The actions that follow the observation."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an observation.

    Args:
        dtype: Name of numpy's type.
        shape: Its axes; None = any length.
    """

    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """A policy seen from outside.

    Args:
        name: Name of its checkpoint.
        observation: What it must be told besides the task, by LeRobot's keys.
        tasks: Instructions that it knows, at most the first thousand.
        action_dim: Numbers in an action a.
        horizon: Actions in a chunk h.
        execute: Actions of a chunk that are executed before it plans again.
        fps: Actions per second that it was trained at; 0 = unknown.
        robot_type: The robot of its training data.
    """

    name: str
    observation: Mapping[str, Part]
    tasks: tuple[str, ...]
    action_dim: int
    horizon: int
    execute: int
    fps: float
    robot_type: str

    @classmethod
    def of(cls, policy: RobotPolicy, name: str) -> Metadata:
        """Of a policy whose checkpoint has that name."""
        return cls(
            name=name,
            observation={
                key: Part("uint8" if key.startswith(IMAGES) else "float32", shape)
                for key, shape in policy.shapes.items()
            },
            tasks=tuple(policy.instructions.texts[:_MAX_TASKS]),
            action_dim=policy.model.action_dim,
            horizon=policy.model.horizon,
            execute=policy.config.execute,
            fps=float(policy.config.fps),
            robot_type=policy.config.robot_type,
        )

    def record(self) -> dict[str, Any]:
        """As a part of a message."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Metadata:
        """From a part of a message.

        Raises:
            PolyditError: It is not what `record` makes.
        """
        try:
            parts = {
                str(key): Part(str(part["dtype"]), tuple(part["shape"]))
                for key, part in record["observation"].items()
            }
            return cls(
                name=str(record["name"]),
                observation=parts,
                tasks=tuple(map(str, record["tasks"])),
                action_dim=int(record["action_dim"]),
                horizon=int(record["horizon"]),
                execute=int(record["execute"]),
                fps=float(record["fps"]),
                robot_type=str(record["robot_type"]),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise PolyditError(f"the server's metadata cannot be read ({error!r})") from error
