"""Episodes as HDF5: RDT's layout and its traps, files of ALOHA, and files that want to do harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
from av.codec.context import CodecContext

from polydit.core.errors import InputError
from polydit.robopolicy.data import hdf5_files
from polydit.robopolicy.data.hdf5 import INSTRUCTIONS, HDF5Dataset, HDF5Options, episode_files
from polydit.robopolicy.data.readers import read_dataset

FRAMES = 6
WORDS = {
    "instruction": "pour water",
    "simplified_instruction": ["pour"],
    "expanded_instruction": ["please pour the water", "take the cup and pour"],
}


def picture() -> np.ndarray:
    """Red above, blue below, RGB."""
    pixels = np.zeros((32, 48, 3), dtype=np.uint8)
    pixels[:16, :, 0], pixels[16:, :, 2] = 220, 220
    return pixels


def jpeg(pixels: np.ndarray) -> bytes:
    """A JPEG file that every viewer shows as `pixels`."""
    codec: Any = CodecContext.create("mjpeg", "w")
    codec.height, codec.width = pixels.shape[:2]
    codec.pix_fmt, codec.time_base, codec.options = "yuvj444p", Fraction(1), {"qmin": "1", "qmax": "1"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(
        format="yuvj444p"
    )
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])


def as_opencv_wrote_it() -> bytes:
    """OpenCV takes arrays as BGR; given RGB, it writes a file with red and blue swapped."""
    return jpeg(picture()[..., ::-1])


def record(path: Path, number: int = 0, frames: int = FRAMES) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    with h5py.File(path, "w") as file:
        state = rng.normal(size=(frames, 14))
        state[:3] = state[0]
        file["observations/qpos"], file["action"] = state, rng.normal(size=(frames, 14)).astype(np.float32)
        file["observations/qvel"] = np.zeros((frames, 14))
        file["base_action"] = np.ones((frames, 2))
        encoded = [as_opencv_wrote_it()] * frames
        file["observations/images/cam_high"] = np.array(encoded, dtype=f"S{len(encoded[0])}")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in (2, 10):
        record(tmp_path / "set/task" / f"episode_{number}.hdf5", number)
    (tmp_path / "set/task" / INSTRUCTIONS).write_text(json.dumps(WORDS))
    return tmp_path / "set"


def test_a_folder_of_episodes(folder: Path) -> None:
    dataset = read_dataset(folder)
    assert [path.name for path in episode_files(folder)] == ["episode_2.hdf5", "episode_10.hdf5"]
    assert len(dataset) == 2 and dataset.problems == () and dataset.stored is None
    episode = dataset[1]
    rng = np.random.default_rng(10)
    assert np.allclose(episode.state[0], rng.normal(size=(FRAMES, 14))[0])
    assert episode.action.dtype == episode.state.dtype == np.float32
    assert (episode.fps, episode.task, episode.index) == (25.0, "pour water", 1)
    assert set(episode.extra) == {"observation.velocity", "base_action"}
    assert dataset.info.version == "hdf5" and dataset.info.tasks == ("pour water",)
    assert dataset.info.features["action"].shape == (14,)
    assert dataset.statistics["action"]["count"].tolist() == [2 * FRAMES]


def test_red_stays_red(folder: Path) -> None:
    """The trap: those JPEG files show red and blue swapped in every viewer."""
    frames = read_dataset(folder)[0].images["cam_high"]
    assert np.abs(frames[3].astype(int) - picture()).max() < 12
    assert len(list(frames)) == FRAMES and np.array_equal(list(frames)[5], frames[5])
    plain = HDF5Dataset(folder, HDF5Options(jpeg_order="rgb"))[0].images["cam_high"]
    assert np.abs(plain[3].astype(int) - picture()[..., ::-1]).max() < 12
    with pytest.raises(IndexError):
        frames[FRAMES]


def add_cameras(path: Path) -> None:
    encoded = as_opencv_wrote_it()
    padded = np.frombuffer(encoded + bytes(9), dtype=np.uint8)
    with h5py.File(path, "a") as file:
        images = file["observations/images"]
        images["padded"] = np.stack([padded] * FRAMES)
        images["raw"] = np.stack([picture()] * FRAMES)
        images.create_dataset("loose", (FRAMES,), dtype=h5py.vlen_dtype(np.uint8))
        for frame in range(FRAMES):
            images["loose"][frame] = np.frombuffer(encoded, dtype=np.uint8)


def test_all_ways_in_which_pictures_are_kept(tmp_path: Path) -> None:
    path = record(tmp_path / "a.hdf5")
    add_cameras(path)
    images = read_dataset(path)[0].images
    assert set(images) == {"cam_high", "padded", "raw", "loose"}
    for name, frames in images.items():
        assert np.abs(frames[2].astype(int) - picture()).max() < 12, name
    assert np.array_equal(images["raw"][0], picture())


def test_wordings(folder: Path) -> None:
    def tasks(wording: Any) -> list[str]:
        dataset = HDF5Dataset(folder, HDF5Options(wording=wording))
        return [dataset[k].task for k in range(2)]

    assert tasks("simplified") == ["pour", "pour"]
    assert set(tasks("expanded")) <= set(WORDS["expanded_instruction"])
    assert tasks("mixed") == tasks("mixed")
    (folder / "task" / INSTRUCTIONS).unlink()
    assert read_dataset(folder)[0].task == ""
    assert read_dataset(folder).problems == ("2 episodes have no instruction",)
    with h5py.File(folder / "task/episode_2.hdf5", "a") as file:
        file["instruction"] = "fold the shirt"
    assert read_dataset(folder)[0].task == "fold the shirt"


def test_wordings_are_mixed_in_thirds(tmp_path: Path) -> None:
    """Each wording is drawn for about a third of the episodes, by the name of the file."""
    first = record(tmp_path / "episode_0.hdf5", frames=1)
    for number in range(1, 60):
        (tmp_path / f"episode_{number}.hdf5").write_bytes(first.read_bytes())
    (tmp_path / INSTRUCTIONS).write_text(json.dumps(WORDS))
    dataset = HDF5Dataset(tmp_path, HDF5Options(wording="mixed"))
    drawn = [dataset._task(number) for number in range(60)]
    assert 10 <= drawn.count("pour water") <= 30 and 10 <= drawn.count("pour") <= 30
    assert set(drawn) == {"pour water", "pour", *WORDS["expanded_instruction"]}


def test_leading_still_frames_and_short_episodes(folder: Path) -> None:
    """RDT begins a frame before the first motion: frames 0 to 2 are the same, so with frame 2."""
    moving = HDF5Dataset(folder, HDF5Options(still=0.01))[0]
    assert len(moving) == FRAMES - 2
    whole = read_dataset(folder)[0]
    assert np.array_equal(moving.state, whole.state[2:]) and np.array_equal(moving.action, whole.action[2:])
    assert len(moving.images["cam_high"]) == len(moving)
    with pytest.raises(InputError, match="the robot never moves"):
        HDF5Dataset(folder, HDF5Options(still=100.0))
    with pytest.raises(InputError, match="has 6 frames; expected at least 128"):
        HDF5Dataset(folder, HDF5Options(min_frames=128))


def test_frames_per_second(folder: Path) -> None:
    assert HDF5Dataset(folder, HDF5Options(fps=50.0)).info.fps == 50
    with h5py.File(folder / "task/episode_10.hdf5", "a") as file:
        file.attrs["fps"] = 30
    with pytest.raises(InputError, match="has 30 frames per second; expected 25"):
        read_dataset(folder)[1]
    with h5py.File(folder / "task/episode_10.hdf5", "a") as file:
        file.attrs["fps"] = -1
    with pytest.raises(InputError, match=r"its fps is .*-1"):
        read_dataset(folder)[1]
    with pytest.raises(InputError, match="fps is 0"):
        HDF5Options(fps=0.0)


# ---------------------------------------------------------------------------------------------------------
# Files that are wrong


def replace(name: str, value: Any) -> Callable[[h5py.File], object]:
    def change(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return change


def with_nan(file: h5py.File) -> None:
    file["action"][2, 3] = np.nan


def link_out(file: h5py.File) -> None:
    del file["action"]
    file["action"] = h5py.ExternalLink("episode_2.hdf5", "action")


def raw_outside(file: h5py.File) -> None:
    del file["action"]
    file.create_dataset("action", (6, 14), dtype="f4", external=[("episode_2.hdf5", 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File) -> None:
    del file["action"]
    layout = h5py.VirtualLayout(shape=(6, 14), dtype="f4")
    layout[:] = h5py.VirtualSource("episode_2.hdf5", "action", shape=(6, 14))
    file.create_virtual_dataset("action", layout)


def torn_picture(file: h5py.File) -> None:
    content = as_opencv_wrote_it()[:200]
    replace("observations/images/cam_high", np.array([content] * 6, dtype="S200"))(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace("action", None), "has no action"),
        (replace("observations/qpos", None), "has no observations/qpos"),
        (replace("action", np.zeros((6, 7))), r"action has the shape \[7\]; expected \[14\] as .*episode_2"),
        (replace("action", np.zeros((5, 14))), "has 6 rows and action has 5"),
        (replace("action", np.zeros(6)), r"action is float64 \[6\]"),
        (replace("action", np.array([b"x"] * 6)), r"action is \|S1 \[6\]"),
        (replace("base_action", None), r"base_action has the shape nothing; expected \[2\]"),
        (replace("observations/images/cam_high", np.array([b"abc"] * 6)), "neither a PNG nor a JPEG"),
        (replace("observations/images/cam_high", np.zeros((6, 8, 8, 4), np.uint8)), "expected pictures"),
        (torn_picture, "the picture is damaged"),
        (with_nan, "action holds a value that is no finite number"),
        (link_out, "action is a link, which is not followed"),
        (raw_outside, "action is no dataset of this file"),
        (virtual, "action is no dataset of this file"),
    ],
)
def test_a_bad_file_fails_alone(folder: Path, change: Callable[[h5py.File], object], message: str) -> None:
    with h5py.File(folder / "task/episode_10.hdf5", "a") as file:
        change(file)
    dataset = read_dataset(folder)
    with pytest.raises(InputError, match=message) as refused:
        dataset[1]
    assert "episode_10.hdf5" in str(refused.value)
    assert len(dataset[0]) == FRAMES


def test_a_declared_size_that_would_fill_the_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array may be declared without its bytes: here 17 GB in a file of some kB."""
    path = folder / "task/episode_10.hdf5"
    with h5py.File(path, "a") as file:
        del file["action"]
        file.create_dataset("action", (1 << 20, 4096), dtype="f4", chunks=(1024, 64))
    assert path.stat().st_size < 10**6
    with pytest.raises(InputError, match=r"action of 16\.0 GiB; expected <= 4 GiB"):
        read_dataset(folder)[1]
    assert hdf5_files.MAX_ARRAY_BYTES == 1 << 32


def test_what_is_no_hdf5(tmp_path: Path) -> None:
    (tmp_path / "a.hdf5").write_bytes(b"no")
    with pytest.raises(InputError, match=r"a\.hdf5: cannot be read"):
        read_dataset(tmp_path)
    (tmp_path / "a.hdf5").unlink()
    with pytest.raises(InputError, match="no data set is here; expected a LeRobotDataset"):
        read_dataset(tmp_path)
    with pytest.raises(InputError, match="there are no HDF5 files"):
        HDF5Dataset(tmp_path)
    record(tmp_path / "b.hdf5")
    (tmp_path / INSTRUCTIONS).write_text("[]")
    with pytest.raises(InputError, match="not a table of instructions"):
        read_dataset(tmp_path)
