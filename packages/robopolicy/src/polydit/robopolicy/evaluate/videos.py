"""Pictures of an episode as a small mp4, and a few of them side by side as one picture."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from jaxtyping import UInt8

from polydit.core.errors import InputError

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

_MOST_PIXELS: Final = 1 << 24  # of a frame; decoding a larger one is refused
_QUALITY: Final = "23"  # x264's own default


class VideoWriter:
    """Encodes frames as they come (H.264, yuv420p: what every browser plays); a context manager.

    Args:
        fps: Frames per second.
        comment: Written into the file's tag of that name.
    """

    def __init__(self, fps: float, comment: str = "") -> None:
        import av

        self._buffer = io.BytesIO()
        self._fps = Fraction(fps).limit_denominator(1001)
        self._container: OutputContainer = av.open(self._buffer, "w", format="mp4")
        self._container.metadata["comment"] = comment
        self._stream: VideoStream | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def add(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Appends a frame; an odd last row or column is cut off, since the format has none."""
        import av

        even = np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._fps)
            self._stream.height, self._stream.width = even.shape[:2]
            self._stream.pix_fmt = "yuv420p"
            # One thread: episodes side by side are the parallelism.
            self._stream.options = {"crf": _QUALITY, "preset": "veryfast", "threads": "1"}
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))

    def finish(self) -> bytes:
        """The file; nothing can be added after it.

        Raises:
            InputError: No frame was added.
        """
        if self._stream is None:
            raise InputError("a video needs at least one frame")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._buffer.getvalue()


def filmstrip(path: Path, *, frames: int = 3, height: int = 128) -> bytes:
    """Evenly spaced frames of a video side by side, as JPEG; the first and the last are among them.

    Args:
        path: The video.
        frames: How many; fewer if the video has fewer.
        height: In pixels, even.

    Raises:
        InputError: The video cannot be decoded, or lacks frames.
    """
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if not 0 < stream.width * stream.height <= _MOST_PIXELS:
                raise InputError(f"its frames are {stream.width} x {stream.height} pixels", where=str(path))
            width = round(stream.width * height / stream.height / 2) * 2
            wanted = {round(k * (stream.frames - 1) / max(1, frames - 1)) for k in range(frames)}
            decoded = enumerate(container.decode(stream))
            chosen = [
                frame.reformat(width, height, "rgb24").to_ndarray() for k, frame in decoded if k in wanted
            ]
    except (av.FFmpegError, IndexError) as error:
        raise InputError(f"the video cannot be decoded ({error})", where=str(path)) from error
    if not chosen or len(chosen) < len(wanted):
        raise InputError(f"the video lacks frames: its header names {stream.frames}", where=str(path))
    return _jpeg(np.concatenate(chosen, axis=1))


def _jpeg(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    import av

    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1)
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
