"""Pictures of an episode in a video that many episodes share: found by their time, frame-exactly.

Frame k of an episode lies at the episode's first second in the file plus k / fps. Nothing is ever taken for a frame
that is not there: a file that lacks one is named.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from jaxtyping import Float, UInt8

from polydit.core.errors import InputError
from polydit.robopolicy.data.pictures import MAX_PIXELS, check_shape

_OFF = 0.25  # frames: how far a frame's time may be from where it belongs
_KEPT_OPEN = 8  # videos of one thread; a policy with three cameras reads from three at once
_opened = threading.local()


class VideoHeader(NamedTuple):
    """What a file says of itself without being decoded; `frames` is 0 if it does not say how many it has."""

    height: int
    width: int
    frames: int
    codec: str
    pixel_format: str


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (av.FFmpegError, OSError, EOFError, ValueError) as error:  # ValueError: text that is no UTF-8
        reason = getattr(error, "strerror", None) or str(error) or "it ends too early"
        raise InputError(f"the video cannot be read: {reason}", where=str(path)) from error


def _open(path: Path) -> InputContainer:
    container = av.open(str(path))
    if not container.streams.video:
        container.close()
        raise InputError("there is no video in it", where=str(path))
    context: Any = container.streams.video[0].codec_context
    if context is None:
        container.close()
        raise InputError("its codec is unknown", where=str(path))
    if context.width * context.height > MAX_PIXELS:
        container.close()
        raise InputError(f"the video has {context.width} x {context.height} pixels", where=str(path))
    return container


def video_header(path: Path) -> VideoHeader:
    """The header of a video.

    Raises:
        InputError: It is missing, damaged or absurdly large.
    """
    with _naming(path):
        return _header(path, _stamp(path))


def frame_times(path: Path) -> Float[np.ndarray, " n"]:
    """Seconds of all frames in the file, in order; reads the file but decodes nothing.

    Raises:
        InputError: It cannot be read.
    """
    with _naming(path):
        return _times(path, _stamp(path))


def _stamp(path: Path) -> tuple[int, int]:
    """What tells a file from one that took its place."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4096)
def _header(path: Path, stamp: tuple[int, int]) -> VideoHeader:
    with _open(path) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        name = context.codec.canonical_name
        return VideoHeader(context.height, context.width, stream.frames, name, context.pix_fmt or "")


@lru_cache(maxsize=64)
def _times(path: Path, stamp: tuple[int, int]) -> Float[np.ndarray, " n"]:
    with _open(path) as container:
        stream = container.streams.video[0]
        times = [float(p.pts * p.time_base) for p in container.demux(stream) if p.pts is not None and p.size]
    return np.sort(np.array(times, dtype=np.float64))


@dataclass(frozen=True, kw_only=True)
class VideoFrames:
    """Pictures of one episode and camera.

    Args:
        path: The video.
        start: Second of the episode's first frame in it.
        count: Frames of the episode.
        fps: Frames per second.
        shape: Height, width and 3 as declared.
        episode: Number of the episode, for messages.
    """

    path: Path
    start: float
    count: int
    fps: float
    shape: tuple[int, int, int]
    episode: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        with _naming(self.path):
            return next(self._decode(_container(self.path), index))

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        with _naming(self.path), _open(self.path) as container:
            yield from self._decode(container, 0)

    def check(self, frames_in_file: int) -> None:
        """Whether all frames are there, by header or, if that says otherwise, by the times in the file.

        Args:
            frames_in_file: Frames of all episodes that share the file.

        Raises:
            InputError: Frames are missing, or the pictures have another size than was declared.
        """
        header = video_header(self.path)
        if (header.height, header.width) != self.shape[:2]:
            problem = f"the video has the shape {[header.height, header.width, 3]}"
            raise InputError(problem, where=self._where, expected=f"{list(self.shape)} as info.json says")
        if header.frames != frames_in_file and (found := self._found()) != self.count:
            raise self._missing(found)

    def _found(self) -> int:
        """How many of the episode's frames are in the file."""
        places = (frame_times(self.path) - self.start) * self.fps
        near = np.round(places)
        fits = (np.abs(places - near) <= _OFF) & (near >= 0) & (near < self.count)
        return len(np.unique(near[fits]))

    def _decode(self, container: InputContainer, first: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        wanted = first
        # Half a frame early: rounding must not make the seek skip the frame itself.
        seconds = max(0.0, self.start + (first - 0.5) / self.fps)
        container.seek(int(seconds / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is None:
                continue
            place = (float(frame.pts * stream.time_base) - self.start) * self.fps
            if place < wanted - _OFF:
                continue
            if place > wanted + _OFF:
                break
            yield check_shape(np.asarray(frame.to_ndarray(format="rgb24")), self.shape, where=self._where)
            wanted += 1
            if wanted == self.count:
                return
        raise self._missing(self._found())

    @property
    def _where(self) -> str:
        return f"{self.path}: episode {self.episode}"

    def _missing(self, found: int) -> InputError:
        if found == self.count:  # they are listed, but do not decode
            return InputError("frames of the video are damaged", where=self._where)
        problem = f"the video has {found} frames of this episode"
        return InputError(problem, where=self._where, expected=f"{self.count}")


def _container(path: Path) -> InputContainer:
    """An open video of this thread and process: a forked process must not share the place in a file."""
    containers: OrderedDict[object, InputContainer] = _opened.__dict__.setdefault("open", OrderedDict())
    key = (os.getpid(), path, _stamp(path))
    if key not in containers:
        containers[key] = _open(path)
        while len(containers) > _KEPT_OPEN:
            containers.popitem(last=False)[1].close()
    containers.move_to_end(key)
    return containers[key]
