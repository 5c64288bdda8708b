"""One recorded episode: what every data set is read into and every recorder writes from. numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from polydit.core.errors import InputError

STATE, ACTION, TASK, IMAGES = "observation.state", "action", "task", "observation.images."


@runtime_checkable
class FrameSource(Protocol):
    """The pictures of one camera in one episode, decoded when they are asked for."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and 3."""
        ...

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """One frame, RGB."""
        ...

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        """All frames in order; much faster than one by one."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """States, actions and pictures of one episode, one row per frame.

    Args:
        index: Number of the episode in its data set.
        fps: Frames per second; also the control frequency in Hz.
        task: Instruction in words.
        state: What the robot knows of itself and, in simulation, of the scene; float32.
        action: The action that was asked for at each frame; float32.
        images: Pictures by camera name (the part of the key after "observation.images.").
        extra: Further columns by their key, one row per frame, such as "next.reward" or "next.success".
        source: Where it was read from, for messages.

    Raises:
        InputError: If a column is not finite or its number of rows differs.
    """

    index: int
    fps: float
    task: str
    state: Float[np.ndarray, "t s"]
    action: Float[np.ndarray, "t a"]
    images: Mapping[str, FrameSource] = field(default_factory=dict)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        columns = {STATE: len(self.state), **{key: len(rows) for key, rows in self.extra.items()}}
        columns |= {IMAGES + camera: len(frames) for camera, frames in self.images.items()}
        for key, count in columns.items():
            if count != len(self.action):
                problem = f"{key} has {count} rows and action has {len(self.action)}"
                raise InputError(problem, where=self.where)
        for key, rows in ((STATE, self.state), (ACTION, self.action)):
            if not np.isfinite(rows).all():
                raise InputError(f"{key} holds a value that is no finite number", where=self.where)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.action)

    @property
    def where(self) -> str:
        """The episode's name in messages."""
        return self.source or f"episode {self.index}"
