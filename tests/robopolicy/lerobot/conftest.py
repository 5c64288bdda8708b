"""A toy data set: four episodes of three tasks, one camera as a film, one as pictures in the table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydit.robopolicy.data.features import Feature, features_of
from polydit.robopolicy.data.pictures import ArrayFrames
from polydit.robopolicy.data.readers import read_dataset
from polydit.robopolicy.data.writer import LeRobotWriter
from polydit.robopolicy.episode import Episode


class Toy:
    """What is in the data set, how it is written, and whether a folder holds just that."""

    lengths = (5, 9, 1, 6)
    tasks = ("open the drawer", "reach", "open the drawer", "push")
    fps = 20.0
    film, still = "observation.images.top", "observation.images.wrist"

    def grey(self, episode: int, frame: int) -> int:
        """The grey of a picture of the film: it tells which one it is."""
        return 10 * frame + 50 * episode + 8

    def episode(self, number: int, *, pictures: bool = True, **changes: Any) -> Episode:
        """Episode `number`, which `changes` may spoil."""
        count, rng = self.lengths[number], np.random.default_rng(number)
        greys = np.array([self.grey(number, frame) for frame in range(count)], dtype=np.uint8)
        top = np.broadcast_to(greys[:, None, None, None], (count, 32, 48, 3)).copy()
        wrist = rng.integers(0, 256, (count, 20, 30, 3), dtype=np.uint8)
        settings: dict[str, Any] = {
            "index": number,
            "fps": self.fps,
            "task": self.tasks[number],
            "state": rng.normal(size=(count, 3)).astype(np.float32),
            "action": rng.normal(size=(count, 2)).astype(np.float32),
            "images": {"top": ArrayFrames(top), "wrist": ArrayFrames(wrist)} if pictures else {},
            "extra": {
                "next.reward": np.arange(count, dtype=np.float32),
                "next.success": np.arange(count) == count - 1,
                "observation.grid": rng.integers(0, 9, (count, 2, 4)),
                "comment": np.array([f"frame {frame}" for frame in range(count)]),
            },
        }
        return Episode(**{**settings, **changes})

    def features(self, *, pictures: bool = True) -> dict[str, Feature]:
        """Those of its episodes."""
        found = features_of(self.episode(0, pictures=pictures), state_names=("x", "y", "z"))
        if pictures:
            names = ("height", "width", "channels")
            found[self.still] = Feature(dtype="image", shape=(20, 30, 3), names=names)
        return found

    def writer(self, out: Path, *, pictures: bool = True, **settings: Any) -> LeRobotWriter:
        """One that waits for its episodes."""
        known = {"fps": self.fps, "features": self.features(pictures=pictures), "robot_type": "toy"}
        return LeRobotWriter(out, **{**known, **settings})

    def write(self, out: Path, *, pictures: bool = True, episodes: int = 4, **settings: Any) -> Path:
        """The whole of it, or its first episodes."""
        with self.writer(out, pictures=pictures, **settings) as writer:
            for number in range(episodes):
                writer.add(self.episode(number, pictures=pictures))
        return out

    def files(self, folder: Path) -> list[str]:
        """All files in a folder, seen from there."""
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def change_info(self, folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
        """``toy.change_info(folder, lambda info: info.update(fps=30))``."""
        path = folder / "meta/info.json"
        info = json.loads(path.read_text())
        change(info)
        path.write_text(json.dumps(info))

    def assert_read_from(self, path: Path) -> None:
        """A folder holds the four episodes: numbers and still pictures to the bit, the film to its compression."""
        dataset = read_dataset(path)
        assert len(dataset) == 4 and dataset.problems == ()
        for number in range(4):
            self._assert_same(dataset[number], self.episode(number))

    def _assert_same(self, found: Episode, expected: Episode) -> None:
        assert (found.index, found.task, found.fps) == (expected.index, expected.task, self.fps)
        assert np.array_equal(found.state, expected.state) and np.array_equal(found.action, expected.action)
        assert set(found.extra) == set(expected.extra)
        for key, rows in expected.extra.items():
            assert np.array_equal(found.extra[key], rows)
            assert found.extra[key].dtype.kind == rows.dtype.kind
        stills = zip(found.images["wrist"], expected.images["wrist"], strict=True)
        assert all(np.array_equal(one, other) for one, other in stills)
        greys = np.array([frame.mean() for frame in found.images["top"]])
        assert np.abs(greys - [self.grey(found.index, k) for k in range(len(expected))]).max() < 4


@pytest.fixture(scope="session")
def toy() -> Toy:
    """The toy data set, to be written."""
    return Toy()


@pytest.fixture(scope="session")
def v3(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written as v3.0; to be read only."""
    return toy.write(tmp_path_factory.mktemp("v3") / "set")


@pytest.fixture(scope="session")
def v21(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written as v2.1; to be read only."""
    return toy.write(tmp_path_factory.mktemp("v21") / "set", version="v2.1")


@pytest.fixture(scope="session")
def states_once(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written as v3.0 without pictures; to be read only."""
    return toy.write(tmp_path_factory.mktemp("states") / "set", pictures=False)


@pytest.fixture
def states(states_once: Path, tmp_path: Path) -> Path:
    """A data set without pictures, to be damaged."""
    return shutil.copytree(states_once, tmp_path / "set")


@pytest.fixture
def filmed(v3: Path, tmp_path: Path) -> Path:
    """One with pictures, to be damaged."""
    return shutil.copytree(v3, tmp_path / "set")
