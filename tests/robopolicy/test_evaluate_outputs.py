"""What an evaluation shows: figures by task, a row per episode, and films."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.core.jobs import ManifestRecord
from polydit.robopolicy.evaluate.summary import Summary
from polydit.robopolicy.evaluate.videos import VideoWriter, filmstrip


def record(task: str, seed: int, success: bool | None, steps: int = 10) -> ManifestRecord:
    measures = {"task": task, "success": success, "steps": steps, "reward": 2.0, "inference_ms": 4.0}
    common: Any = {
        "id": f"{task}-{seed}",
        "index": seed,
        "seed": seed,
        "attempt": 1,
        "inputs": [],
        "outputs": [],
    }
    if success is None:
        error = {"type": "Died", "message": "it died"}
        return common | {"status": "failed", "measures": {"task": task}, "seconds": 1.0, "error": error}
    return common | {"status": "ok", "measures": measures, "seconds": 0.5}


def test_figures_are_counted_by_task() -> None:
    rows = [record("a", 0, True, 20), record("a", 1, True, 40), record("b", 2, False), record("b", 3, None)]
    summary = Summary.of(rows)
    a, b = summary.tasks
    assert (a.success.numerator, a.success.denominator, b.success.numerator, b.success.denominator) == (
        2,
        2,
        0,
        2,
    )
    assert summary.mean_over_tasks == 0.5
    assert (a.steps_to_success, b.steps_to_success) == (30.0, None)
    assert (a.steps_per_second, b.steps_per_second) == (60.0, 20.0)
    figures = summary.to_json()
    assert list(figures["tasks"]) == ["a", "b"]
    assert figures["tasks"]["b"]["broke_off"] == 1
    assert figures["all"]["success"]["interval"] == pytest.approx((0.1500, 0.8500), abs=5e-5)


def test_the_table_has_a_row_per_episode() -> None:
    table = Summary.of([record("a", 0, True), record("b", 3, None)]).csv().decode()
    assert table.splitlines() == [
        "task,seed,success,steps,reward,seconds,inference_ms,error",
        "a,0,1,10,2.0,0.5,4.0,",
        "b,3,0,,,,,it died",
    ]


def test_no_episode_gives_no_figure() -> None:
    summary = Summary.of([])
    assert (summary.tasks, summary.mean_over_tasks) == ((), None)
    assert summary.to_json()["all"]["success"]["value"] is None


# ---------------------------------------------------------------------------------------------------------
# Films.


def film(frames: int, height: int = 65, width: int = 97) -> bytes:
    with VideoWriter(12.5, "a comment") as video:
        for k in range(frames):
            video.add(np.full((height, width, 3), 20 * k, dtype=np.uint8))
        return video.finish()


@pytest.mark.parametrize("frames", [1, 10])
def test_a_video_holds_every_frame(tmp_path: Path, frames: int) -> None:
    import av

    (tmp_path / "film.mp4").write_bytes(film(frames))
    with av.open(str(tmp_path / "film.mp4")) as container:
        stream = container.streams.video[0]
        shades = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(stream)]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 96, 64)
        assert float(stream.average_rate or 0) == 12.5
        assert container.metadata["comment"] == "a comment"
    assert shades == pytest.approx([20 * k for k in range(frames)], abs=4)


def test_a_filmstrip_shows_the_first_and_the_last_frame(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "film.mp4").write_bytes(film(11))
    with Image.open(io.BytesIO(filmstrip(tmp_path / "film.mp4", frames=3, height=32))) as strip:
        pixels = np.asarray(strip.convert("RGB"))
    assert pixels.shape == (32, 144, 3)
    assert [pixels[:, 48 * k : 48 * k + 48].mean() for k in range(3)] == pytest.approx([0, 100, 200], abs=6)


def test_a_damaged_video_is_named(tmp_path: Path) -> None:
    whole = film(12, 64, 96)
    for name, content in {"torn": whole[:-400], "text": b"no video", "empty": b""}.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.mp4"):
            filmstrip(tmp_path / f"{name}.mp4")


def test_a_video_without_a_frame_is_refused() -> None:
    with pytest.raises(InputError, match="at least one frame"):
        film(0)
