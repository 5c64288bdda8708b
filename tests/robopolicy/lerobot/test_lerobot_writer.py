"""The writer of LeRobot data sets: what it refuses and never replaces, and that it goes on where it was killed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.core.jobs.lock import FolderLock
from polydit.robopolicy.data.features import Feature
from polydit.robopolicy.data.pictures import ArrayFrames
from polydit.robopolicy.data.readers import read_dataset
from polydit.robopolicy.data.writer import LeRobotWriter
from polydit.robopolicy.episode import Episode


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda _: {"fps": 25.0}, "25 frames per second; expected 20"),
        (
            lambda _: {"action": np.zeros((9, 3), np.float32)},
            r"action has the shape \[3\]; expected \[2\]",
        ),
        (lambda _: {"images": {}}, r"lacks \['observation.images.top', 'observation.images.wrist'\]"),
        (lambda _: {"extra": {}}, "lacks .*next.reward"),
        (lambda e: {"extra": e.extra | {"b": np.zeros(9)}}, r"has \['b'\] that the features lack"),
        (lambda e: {"extra": e.extra | {"next.reward": np.full(9, np.nan)}}, "next.reward holds a value"),
        (
            lambda e: {"images": e.images | {"top": ArrayFrames(np.zeros((9, 8, 8, 3), np.uint8))}},
            r"top has the shape \[8, 8, 3\]; expected \[32, 48, 3\]",
        ),
    ],
)
def test_an_episode_that_does_not_fit_is_refused(
    toy: Any, tmp_path: Path, changes: Callable[[Episode], dict[str, Any]], message: str
) -> None:
    with toy.writer(tmp_path / "set") as writer:
        writer.add(toy.episode(0))
        with pytest.raises(InputError, match=message):
            writer.add(toy.episode(1, **changes(toy.episode(1))))
        for number in (1, 2, 3):
            writer.add(toy.episode(number))
    toy.assert_read_from(tmp_path / "set")


def test_features_that_cannot_be_written(toy: Any, tmp_path: Path) -> None:
    def refused(found: dict[str, Feature], message: str) -> None:
        with pytest.raises(InputError, match=message):
            LeRobotWriter(tmp_path / "set", fps=toy.fps, features=found, robot_type="")

    odd = Feature(dtype="video", shape=(31, 48, 3))
    refused({**toy.features(), toy.film: odd}, r"shape \[31, 48, 3\] cannot be a video; expected even")
    refused({**toy.features(), "a/b": Feature(dtype="float32", shape=(1,))}, "cannot be a file name")
    refused({**toy.features(), "index": Feature(dtype="int64", shape=(1,))}, "'index' is written by itself")
    refused({"observation.state": Feature(dtype="float32", shape=(1,))}, "lack 'action'")
    assert not (tmp_path / "set").exists()


def test_nothing_is_replaced_unasked(toy: Any, states: Path, tmp_path: Path) -> None:
    before = {name: (states / name).read_bytes() for name in toy.files(states)}
    with pytest.raises(InputError, match=r"a data set is there already.*--overwrite"):
        toy.write(states)
    assert {name: (states / name).read_bytes() for name in toy.files(states)} == before
    toy.write(states, overwrite=True)
    toy.assert_read_from(states)
    (tmp_path / "mine/data").mkdir(parents=True)
    with pytest.raises(InputError, match="holds data but is no data set"):
        toy.write(tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        toy.write(tmp_path / "file")


def test_a_writer_without_episodes_leaves_nothing(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no episode was written"):
        toy.write(tmp_path / "set", episodes=0)
    assert toy.files(tmp_path) == []


def test_two_writers_at_once(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "set/.writing").mkdir(parents=True)
    lock = FolderLock(tmp_path / "set/.writing")
    with pytest.raises(InputError, match=f"process {os.getpid()}"):
        toy.write(tmp_path / "set")
    lock.release()


KILLED = """
import os, sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from conftest import Toy
import polydit.robopolicy.data.staging as staging, polydit.robopolicy.data.write_v3 as v3
def die(*args, **settings): os.kill(os.getpid(), 9)
{patch}
Toy().write(Path("set"), resume=True)
"""
PATCHES = {
    "in a video": "real, calls = staging.encode_video, []\n"
    "staging.encode_video = lambda *a, **s: calls.append(1) or (die() if len(calls) > 2 else real(*a, **s))",
    "before the record": "staging._record = die",
    "while finishing": "v3.write_tasks = die",
    "before info.json": "v3.info_json = die",
}


@pytest.mark.parametrize("moment", PATCHES)
def test_killed_writing_goes_on(
    toy: Any, tmp_path: Path, shell: Callable[..., subprocess.CompletedProcess[str]], moment: str
) -> None:
    """Whenever it is killed, the data set is unfinished until the same call finishes it, without a double episode."""
    code = KILLED.format(folder=str(Path(__file__).parent), patch=PATCHES[moment])
    (tmp_path / "killed.py").write_text(code)
    assert shell("python killed.py").returncode == -9
    with pytest.raises(InputError, match="not finished"):
        read_dataset(tmp_path / "set")
    with toy.writer(tmp_path / "set", resume=True) as writer:
        assert len(writer) == {"in a video": 2, "before the record": 0}.get(moment, 4)
        for number in range(len(writer), 4):
            writer.add(toy.episode(number))
    toy.assert_read_from(tmp_path / "set")
    assert not (tmp_path / "set/.writing").exists()
    assert not [name for name in toy.files(tmp_path / "set") if "tmp" in name]


def test_other_settings_do_not_go_on(toy: Any, tmp_path: Path) -> None:
    def begin(**changes: Any) -> None:
        known = {"pictures": False, "resume": True, "recipe": {"a": 1}}
        with toy.writer(tmp_path / "set", **{**known, **changes}) as writer:
            writer.add(toy.episode(0, pictures=False), {"seed": 7})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    with pytest.raises(InputError, match=r"other settings: fps, robot_type, a.*--overwrite"):
        begin(fps=10.0, robot_type="other", recipe={"a": 2})
    with pytest.raises(InputError, match="other settings: features"):
        begin(features={k: v for k, v in toy.features(pictures=False).items() if k != "comment"})
    with toy.writer(tmp_path / "set", pictures=False, resume=True, recipe={"a": 1}) as writer:
        assert [staged.note for staged in writer.episodes] == [{"seed": 7}]
    recipe = json.loads((tmp_path / "set/data.json").read_text())
    assert recipe == {"recipe": {"a": 1}, "episodes": [{"seed": 7}]}
    assert len(read_dataset(tmp_path / "set")) == 1
