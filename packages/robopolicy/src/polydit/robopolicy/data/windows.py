"""Windows of a data set: what is seen at a frame, and the actions that follow it. Everything but pictures is in memory.

Shapes: n frames of the data set, b windows, s state and a action dimensions, h actions of a window, o pictures of a
camera in a window, y and x pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from polydit.core.errors import InputError
from polydit.robopolicy.data.readers import Dataset
from polydit.robopolicy.episode import ACTION, STATE, Episode, FrameSource

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """Windows as arrays; of a single one the first axis is missing.

    Args:
        episode: Which episodes, by their place among the windows' episodes.
        frame: Which frame of each.
        state: The state at that frame.
        actions: Actions from that frame on, the last one repeated after the episode's end.
        is_pad: True where that is so.
        tasks: The instructions.
        images: Pictures by camera at the windows' picture offsets.
        image_is_pad: True where an offset leads out of the episode and the nearest picture stands for it.
    """

    episode: Int[np.ndarray, "*b"]
    frame: Int[np.ndarray, "*b"]
    state: Float[np.ndarray, "*b s"]
    actions: Float[np.ndarray, "*b h a"]
    is_pad: Bool[np.ndarray, "*b h"]
    tasks: tuple[str, ...]
    images: Mapping[str, UInt8[np.ndarray, "*b o y x 3"]] = field(default_factory=dict)
    image_is_pad: Bool[np.ndarray, "*b o"] | None = None


class Windows:
    """All windows of a data set, one per frame of each good episode.

    Args:
        dataset: The data set. Episodes that cannot be read are left out and named in `rejected`.
        horizon: Actions of a window h.
        action_key: What to take as actions: "action", "observation.state", or a further column of the data set.
        first: Offset of the first action: 0 = that of the frame itself, 1 with the state as action = the next state.
        stride: Frames between two actions.
        cameras: Cameras whose pictures are wanted.
        image_offsets: Frames at which they are wanted, relative to the window's, such as (-1, 0).
        keep_bytes: Decoded pictures are kept in memory if those of all episodes take no more than this.

    Attributes:
        states: Of all good episodes one after the other, (n, s).
        actions: The same, (n, a).
        lengths: Frames of each episode.
        tasks: Instruction of each.
        rejected: Number in the data set and reason of each episode that was left out.
        fps: Frames per second.

    Raises:
        InputError: No episode is good, the horizon or stride is below 1, or a column or camera is missing.
    """

    def __init__(
        self,
        dataset: Dataset,
        horizon: int,
        action_key: str = ACTION,
        *,
        first: int = 0,
        stride: int = 1,
        cameras: Sequence[str] = (),
        image_offsets: Sequence[int] = (0,),
        keep_bytes: int = 1 << 30,
    ) -> None:
        if horizon < 1 or stride < 1:
            raise InputError(f"horizon {horizon} and stride {stride}", expected="at least 1")
        self.horizon, self.cameras = horizon, tuple(cameras)
        self._steps = first + stride * np.arange(horizon)
        self._offsets = np.array(image_offsets, dtype=np.int64)
        self.rejected: list[tuple[int, str]] = []
        episodes = self._good(dataset)
        self.tasks = tuple(episode.task for episode in episodes)
        self.fps = episodes[0].fps
        self.states = np.concatenate([episode.state for episode in episodes])
        self.actions = np.concatenate([_column(episode, action_key) for episode in episodes])
        self.lengths = np.array([len(episode) for episode in episodes])
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._pictures = [_Pictures(episode.images, self.cameras, episode.where) for episode in episodes]
        size = sum(pictures.bytes for pictures in self._pictures)
        self._keep = size <= keep_bytes

    def _good(self, dataset: Dataset) -> list[Episode]:
        episodes: list[Episode] = []
        for index in range(len(dataset)):
            try:
                episodes.append(dataset[index])
            except InputError as error:
                self.rejected.append((index, str(error)))
                _log.warning("left out: %s", error)
        if not episodes:
            reason = self.rejected[0][1] if self.rejected else "it is empty"
            raise InputError(f"no episode can be used: {reason}", where=str(dataset.path))
        return episodes

    def __len__(self) -> int:
        """Number of windows, one per frame."""
        return int(self._starts[-1])

    @property
    def pairs(self) -> Int[np.ndarray, "n 2"]:
        """(episode, frame) of all windows, in order."""
        return self.locate(np.arange(len(self)))

    def locate(self, numbers: Int[np.ndarray, "*b"]) -> Int[np.ndarray, "*b 2"]:
        """(episode, frame) of windows by their number, 0..n-1."""
        episode = np.searchsorted(self._starts, numbers, side="right") - 1
        return np.stack([episode, numbers - self._starts[episode]], axis=-1)

    def __getitem__(self, pair: tuple[int, int]) -> Window:
        """One window by (episode, frame)."""
        batch = self.batch(np.array([pair], dtype=np.int64))
        return Window(
            episode=np.asarray(batch.episode[0]),
            frame=np.asarray(batch.frame[0]),
            state=batch.state[0],
            actions=batch.actions[0],
            is_pad=batch.is_pad[0],
            tasks=batch.tasks,
            images={camera: pictures[0] for camera, pictures in batch.images.items()},
            image_is_pad=None if batch.image_is_pad is None else batch.image_is_pad[0],
        )

    def batch(self, pairs: Int[np.ndarray, "b 2"]) -> Window:
        """Many windows at once.

        Raises:
            IndexError: There is no such episode or frame.
            InputError: Pictures are missing or damaged.
        """
        episode, frame = pairs[:, 0], pairs[:, 1]
        if ((episode < 0) | (episode >= len(self.lengths))).any():
            raise IndexError(f"episodes {episode} of {len(self.lengths)}")
        if ((frame < 0) | (frame >= self.lengths[episode])).any():
            raise IndexError(f"frames {frame} of {self.lengths[episode]}")
        rows, is_pad = self._clamped(episode, frame, self._steps)
        places, image_is_pad = self._clamped(episode, frame, self._offsets)
        return Window(
            episode=episode,
            frame=frame,
            state=self.states[self._starts[episode] + frame],
            actions=self.actions[rows],
            is_pad=is_pad,
            tasks=tuple(self.tasks[index] for index in episode.tolist()),
            images={c: self._images(c, episode, places - self._starts[episode, None]) for c in self.cameras},
            image_is_pad=image_is_pad if self.cameras else None,
        )

    def _clamped(
        self, episode: Int[np.ndarray, " b"], frame: Int[np.ndarray, " b"], offsets: Int[np.ndarray, " k"]
    ) -> tuple[Int[np.ndarray, "b k"], Bool[np.ndarray, "b k"]]:
        """Rows of the data set at offsets from frames, kept inside the episode, and where that was needed."""
        wanted = frame[:, None] + offsets
        inside = np.clip(wanted, 0, self.lengths[episode, None] - 1)
        return self._starts[episode, None] + inside, wanted != inside

    def _images(
        self, camera: str, episode: Int[np.ndarray, " b"], frames: Int[np.ndarray, "b o"]
    ) -> UInt8[np.ndarray, "b o y x 3"]:
        pictures = (
            [self._pictures[e].frame(camera, f, keep=self._keep) for f in row]
            for e, row in zip(episode.tolist(), frames.tolist(), strict=True)
        )
        return np.stack([np.stack(row) for row in pictures])


class _Pictures:
    """The cameras of one episode, decoded when they are first asked for."""

    def __init__(self, images: Mapping[str, FrameSource], cameras: Sequence[str], where: str) -> None:
        for camera in cameras:
            if camera not in images:
                raise InputError(
                    f"has no camera {camera!r}", where=where, expected=f"one of {', '.join(images)}"
                )
        self._sources = {camera: images[camera] for camera in cameras}
        self._decoded: dict[str, UInt8[np.ndarray, "t y x 3"]] = {}

    @property
    def bytes(self) -> int:
        """Size of all pictures decoded."""
        return sum(len(frames) * int(np.prod(frames.shape)) for frames in self._sources.values())

    def frame(self, camera: str, index: int, *, keep: bool) -> UInt8[np.ndarray, "y x 3"]:
        """One picture; with `keep` the whole episode is decoded at the first call and stays."""
        if not keep:
            return self._sources[camera][index]
        if camera not in self._decoded:
            self._decoded[camera] = np.stack(list(self._sources[camera]))
        return self._decoded[camera][index]


def _column(episode: Episode, key: str) -> Float[np.ndarray, "t a"]:
    if key in (STATE, ACTION):
        return episode.state if key == STATE else episode.action
    rows = episode.extra.get(key)
    if rows is None or rows.dtype.kind not in "biuf":
        known = ", ".join([STATE, ACTION, *episode.extra])
        raise InputError(f"has no numbers {key!r}", where=episode.where, expected=f"one of {known}")
    return rows.reshape(len(rows), -1).astype(np.float32)
