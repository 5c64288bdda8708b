"""Episodes as HDF5, one file each, as ALOHA records them and RDT is fine-tuned on.

A file holds `observations/qpos` (t, s), `action` (t, a), `observations/images/<camera>`, and perhaps qvel, effort,
base_action and an instruction; a JSON file beside it may hold three wordings of the instruction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_uniform
from polydit.robopolicy.data.features import features_of
from polydit.robopolicy.data.hdf5_files import (
    HDF5Frames,
    group_names,
    number_rows,
    open_file,
    picture_shape,
    text,
)
from polydit.robopolicy.data.info import MAX_FPS, DatasetInfo, load_json
from polydit.robopolicy.data.readers import Dataset, good_episodes, measure
from polydit.robopolicy.data.statistics import Statistics
from polydit.robopolicy.episode import Episode

Wording = Literal["instruction", "simplified", "expanded", "mixed"]
Order = Literal["bgr", "rgb"]

SUFFIXES = (".hdf5", ".h5")
INSTRUCTIONS = "expanded_instruction_gpt-4-turbo.json"
RDT_FPS = 25.0  # of RDT's own recordings; the files do not say it
_EXTRA = {  # our name of what a file may hold besides
    "observations/qvel": "observation.velocity",
    "observations/effort": "observation.effort",
    "base_action": "base_action",
}
_WORDINGS = {
    "instruction": "instruction",
    "simplified": "simplified_instruction",
    "expanded": "expanded_instruction",
}


@dataclass(frozen=True, kw_only=True)
class HDF5Options:
    """What the files do not say.

    Args:
        fps: Frames per second; None = the file's attribute `fps`, else 25 as in RDT's data.
        jpeg_order: How the colours of JPEG pictures stand. "bgr": OpenCV encoded them from RGB arrays, so a decoder
            gives red and blue swapped; that holds for RDT's and ALOHA's files and is put right here. "rgb": they are as
            any other JPEG. Pictures that are arrays are always RGB.
        wording: Which of the wordings an episode is called by; "mixed" draws one of the three for each episode.
        still: Leading frames in which no joint has moved by more than this are dropped; 0 keeps them, RDT uses 0.01.
        min_frames: Shorter episodes are bad; RDT uses 128.

    Raises:
        InputError: A number is out of range.
    """

    fps: float | None = None
    jpeg_order: Order = "bgr"
    wording: Wording = "instruction"
    still: float = 0.0
    min_frames: int = 1

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise InputError(f"fps is {self.fps}", expected=f"above 0, at most {MAX_FPS:g}")
        if self.still < 0 or self.min_frames < 1:
            raise InputError("still is below 0, or min_frames below 1")


def episode_files(path: Path) -> list[Path]:
    """The HDF5 files at or below a path, episode_2 before episode_10."""
    if path.is_file():
        return [path] if path.suffix.lower() in SUFFIXES else []
    found = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    return sorted(
        found, key=lambda file: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", str(file))]
    )


class HDF5Dataset(Dataset):
    """A folder of such files, or one.

    Args:
        path: File or folder, read recursively.
        options: What the files do not say.

    Raises:
        InputError: There is no such file, or none of them can be read.
    """

    stored = None  # the format has none

    def __init__(self, path: Path, options: HDF5Options | None = None) -> None:
        self.path, self.options = Path(path), options or HDF5Options()
        self._files = episode_files(self.path)
        if not self._files:
            raise InputError("there are no HDF5 files", where=str(path), expected=" or ".join(SUFFIXES))
        self._first = self._first_readable()

    def _first_readable(self) -> Episode:
        """The episode that says what the others have to look like."""
        trouble: InputError | None = None
        for index in range(len(self._files)):
            try:
                return self._read(index)
            except InputError as error:
                trouble = trouble or error
        assert trouble is not None, "there is at least one file"
        raise trouble

    @cached_property
    def info(self) -> DatasetInfo:
        """What the data set is, as its first readable file tells it."""
        return DatasetInfo(
            version="hdf5",
            fps=self._first.fps,
            robot_type="",
            features=features_of(self._first, pictures="image"),
            tasks=tuple(sorted({task for task in self._instructions if task})),
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """Files without an instruction."""
        silent = self._instructions.count("")
        return (f"{silent} episodes have no instruction",) if silent else ()

    @cached_property
    def _instructions(self) -> tuple[str | None, ...]:
        """Those of all files; None where the file cannot be read."""

        def instruction(index: int) -> str | None:
            try:
                return self._task(index)
            except InputError:
                return None

        return tuple(instruction(index) for index in range(len(self)))

    @cached_property
    def statistics(self) -> Statistics:
        """Measured on the episodes that can be read."""
        return measure(good_episodes(self))

    def __len__(self) -> int:
        """Number of files."""
        return len(self._files)

    def __getitem__(self, index: int) -> Episode:
        """One episode.

        Raises:
            InputError: The file is damaged, lacks something, or has other shapes than the first.
        """
        episode = self._read(index)
        expected, found = features_of(self._first, pictures="image"), features_of(episode, pictures="image")
        for key in [*expected, *found]:
            shapes = [list(side[key].shape) if key in side else "nothing" for side in (found, expected)]
            if shapes[0] != shapes[1]:
                problem = f"{key} has the shape {shapes[0]}"
                raise InputError(
                    problem, where=episode.source, expected=f"{shapes[1]} as {self._first.source}"
                )
        if episode.fps != self._first.fps:
            problem = f"has {episode.fps:g} frames per second"
            raise InputError(
                problem, where=episode.source, expected=f"{self._first.fps:g} as {self._first.source}"
            )
        return episode

    def _read(self, index: int) -> Episode:
        path = self._files[index]
        with open_file(path) as file:
            state, action = number_rows(file, "observations/qpos", path), number_rows(file, "action", path)
            if len(state) != len(action):
                problem = f"observations/qpos has {len(state)} rows and action has {len(action)}"
                raise InputError(problem, where=str(path))
            first = self._start(state, path)
            extra = {
                ours: number_rows(file, name, path)[first:] for name, ours in _EXTRA.items() if name in file
            }
            cameras = group_names(file, "observations/images", path)
            images = {
                name: self._frames(file, f"observations/images/{name}", path, first) for name in cameras
            }
            fps = self.options.fps or _fps(file.attrs.get("fps", RDT_FPS), path)
        if len(state) - first < self.options.min_frames:
            problem = f"has {len(state) - first} frames"
            raise InputError(problem, where=str(path), expected=f"at least {self.options.min_frames}")
        return Episode(
            index=index, fps=fps, task=self._task(index), state=state[first:], action=action[first:],
            images=images, extra=extra, source=str(path),
        )  # fmt: skip

    def _start(self, state: np.ndarray, path: Path) -> int:
        """The frame before the first motion."""
        if not self.options.still:
            return 0
        moved = np.flatnonzero((np.abs(state - state[:1]) > self.options.still).any(axis=1))
        if not len(moved):
            raise InputError("the robot never moves", where=str(path))
        return int(moved[0]) - 1

    def _frames(self, file: h5py.File, name: str, path: Path, first: int) -> HDF5Frames:
        count, shape = picture_shape(file, name, path)
        swap = self.options.jpeg_order == "bgr"
        return HDF5Frames(path=path, name=name, first=first, count=count - first, shape=shape, swap=swap)

    def _task(self, index: int) -> str:
        """The instruction: of the JSON file, else of the HDF5 file, else none."""
        path = self._files[index]
        table = self._wordings(path.parent / INSTRUCTIONS)
        if not table:
            with open_file(path) as file:
                return text(
                    file["instruction"][()] if "instruction" in file else file.attrs.get("instruction", "")
                )
        wording: str = self.options.wording
        if wording == "mixed":
            wording = tuple(_WORDINGS)[int(item_uniform(0, path.name) * 3)]
        texts = table.get(_WORDINGS[wording]) or table.get("instruction") or ""
        texts = texts if isinstance(texts, list) else [texts]
        return str(texts[int(item_uniform(1, path.name) * len(texts))]) if texts else ""

    def _wordings(self, path: Path) -> Mapping[str, Any]:
        known: dict[Path, Mapping[str, Any]] = self.__dict__.setdefault("_known_wordings", {})
        if path not in known:
            table = load_json(path) if path.is_file() else {}
            if not isinstance(table, Mapping):
                raise InputError(
                    "not a table of instructions", where=str(path), expected=", ".join(_WORDINGS.values())
                )
            known[path] = table
        return known[path]


def _fps(value: Any, path: Path) -> float:
    fps = float(value) if isinstance(value, int | float | np.number) else float("nan")
    if not 0 < fps <= MAX_FPS:
        raise InputError(f"its fps is {value!r}", where=str(path), expected=f"above 0, at most {MAX_FPS:g}")
    return fps
