"""Videos of LeRobot data sets: every frame is the one that was asked for; a frame or file that is wrong is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.robopolicy.data.pictures import decode_picture, encode_png
from polydit.robopolicy.data.readers import read_dataset
from polydit.robopolicy.data.videos import video_header


def rewrite(path: Path, *, without: int = -1, codec: str = "libx264", options: Mapping[str, str]) -> None:
    """Encodes a video again, perhaps without one frame; the times of the others stay as they were."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 20)
        for number, pixels in enumerate(frames):
            if number != without:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 20)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_pictures_are_found_one_by_one(toy: Any, v3: Path) -> None:
    """In any order, in several episodes of one file, each frame is exactly the one that was asked for."""
    dataset = read_dataset(v3)
    places = [(e, k) for e, n in enumerate(toy.lengths) for k in range(n)]
    for episode, frame in np.random.default_rng(0).permutation(places).tolist():
        frames = dataset[episode].images["top"]
        assert abs(frames[frame].mean() - toy.grey(episode, frame)) < 2
    with pytest.raises(IndexError):
        dataset[0].images["top"][5]


@pytest.fixture
def usual_priority() -> Iterator[None]:
    """SVT-AV1 makes the thread of a root that calls it a real-time one, and so all processes that follow from it."""
    yield
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.mark.usefixtures("usual_priority")
@pytest.mark.skipif("libsvtav1" not in av.codecs_available, reason="this PyAV cannot write AV1")
def test_av1_as_lerobot_writes_it(toy: Any, v21: Path, tmp_path: Path) -> None:
    """LeRobot's default codec: read frame by frame like h264."""
    out = shutil.copytree(v21, tmp_path / "set")
    for path in (out / "videos").rglob("*.mp4"):
        rewrite(path, codec="libsvtav1", options={"g": "2", "crf": "20", "preset": "10"})
    assert video_header(next((out / "videos").rglob("*.mp4"))).codec == "av1"
    toy.assert_read_from(out)


@pytest.mark.parametrize(
    ("version", "name", "place"), [("v3", "file-000.mp4", 8), ("v21", "episode_000001.mp4", 3)]
)
def test_a_video_with_a_missing_frame_is_named(
    toy: Any, version: str, name: str, place: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Frame 3 of episode 1, alone in its file or not."""
    out = shutil.copytree(request.getfixturevalue(version), tmp_path / "set")
    (video,) = (out / "videos").rglob(name)
    rewrite(video, without=place, options={"g": "2", "bf": "0"})
    dataset = read_dataset(out)
    with pytest.raises(InputError) as refused:
        dataset[1]
    message = f"{video}: episode 1: the video has 8 frames of this episode; expected 9"
    assert str(refused.value) == message
    assert abs(dataset[3].images["top"][2].mean() - toy.grey(3, 2)) < 3


def test_a_video_that_is_torn_or_of_another_size(toy: Any, filmed: Path) -> None:
    video = next((filmed / "videos").rglob("*.mp4"))
    content = video.read_bytes()
    toy.change_info(filmed, lambda info: info["features"][toy.film].update(shape=[64, 48, 3]))
    with pytest.raises(InputError, match=r"shape \[32, 48, 3\]; expected \[64, 48, 3\] as info.json says"):
        read_dataset(filmed)[0]
    toy.change_info(filmed, lambda info: info["features"][toy.film].update(shape=[32, 48, 3]))
    video.write_bytes(content[:200])
    with pytest.raises(InputError, match="the video cannot be read"):
        read_dataset(filmed)[0]
    start = content.index(b"mdat") + 4
    video.write_bytes(content[:start] + bytes(len(content) // 2) + content[start + len(content) // 2 :])
    with pytest.raises(InputError, match=r"file-000\.mp4"):
        list(read_dataset(filmed)[0].images["top"])


def test_pictures_that_are_damaged() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    content = encode_png(picture)
    assert np.array_equal(decode_picture(content), picture)
    for wrong in (content[: len(content) // 2], b"GIF89a", b"", content[:40]):
        with pytest.raises(InputError):
            decode_picture(wrong, where="row 3")
