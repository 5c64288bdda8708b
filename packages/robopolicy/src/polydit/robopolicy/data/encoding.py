"""Writing videos as LeRobot has them: h264, yuv420p, a whole picture every other frame so that any is found soon."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from polydit.core.errors import InputError, PolyditError

CODEC, PIXEL_FORMAT, KEY_FRAME_EVERY = "h264", "yuv420p", 2
# crf 18 is visually without loss; no B-frames, so that packets can be put one after the other.
_OPTIONS = {"g": str(KEY_FRAME_EVERY), "sc_threshold": "0", "crf": "18", "preset": "veryfast", "bf": "0"}


def frame_duration(fps: float) -> Fraction:
    """Seconds of a frame, exact for 25, 12.5, 29.97 and 30000 / 1001 alike."""
    return 1 / Fraction(fps).limit_denominator(1001)


def check_size(shape: tuple[int, ...], *, where: str) -> None:
    """Whether pictures of this shape can be a video.

    Raises:
        InputError: A side is odd, which yuv420p cannot have.
    """
    if shape[0] % 2 or shape[1] % 2:
        hint = "Keep them as dtype image, or scale them"
        raise InputError(f"pictures of the shape {list(shape)} cannot be a video", where=where,
                         expected="even height and width", hint=hint)  # fmt: skip


def encode_video(path: Path, frames: Iterable[np.ndarray], *, fps: float, shape: tuple[int, ...]) -> int:
    """Writes RGB pictures as an mp4 file and returns how many there were.

    Raises:
        PolyditError: This build of PyAV has no h264 encoder.
    """
    if "libx264" not in av.codecs_available:
        raise PolyditError(
            "this build of PyAV has no encoder libx264", hint="Install PyAV from its wheels: pip install av"
        )
    count = 0
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=1 / frame_duration(fps), options=dict(_OPTIONS))
        stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], PIXEL_FORMAT
        stream.codec_context.time_base = frame_duration(fps)
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = count, frame_duration(fps)
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    return count


def stream_setup(path: Path) -> bytes:
    """What two videos must have in common to become one: the encoder's settings as the file holds them."""
    with av.open(str(path)) as container:
        return bytes(container.streams.video[0].codec_context.extradata or b"")


def join_videos(parts: Sequence[Path], handle: BinaryIO, *, fps: float) -> None:
    """Puts videos of one encoder one after the other without encoding them again."""
    duration, count = frame_duration(fps), 0
    with av.open(handle, "w", format="mp4") as joined:
        target: Any = None
        for path in parts:
            with av.open(str(path)) as part:
                source = part.streams.video[0]
                target = target or joined.add_stream_from_template(source)
                for packet in part.demux(source):
                    if packet.size:
                        packet.stream, packet.time_base = target, duration
                        packet.pts = packet.dts = count
                        packet.duration = 1
                        joined.mux(packet)
                        count += 1
