"""meta/info.json of a LeRobot data set: what it declares, checked before anything else is read."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from polydit.core.errors import InputError
from polydit.robopolicy.data.features import INDEX, MAX_FEATURES, Feature, feature_from_json
from polydit.robopolicy.episode import IMAGES

INFO = "meta/info.json"
MAX_JSON_BYTES = 1 << 28  # statistics of every episode of a large data set are some tens of MB
MAX_EPISODES = 10**7
MAX_FRAMES = 10**10
MAX_FPS = 10_000.0


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What a data set is.

    Args:
        version: Format and version, such as "lerobot v3.0".
        fps: Frames per second, also the control frequency in Hz.
        robot_type: The robot's name in the data set, "" if it has none.
        features: Columns by key, without the index columns.
        tasks: Instructions, by their index.
        left_out: Columns that are not read, with the reason.
    """

    version: str
    fps: float
    robot_type: str
    features: Mapping[str, Feature]
    tasks: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of the cameras."""
        pictures = (key for key, feature in self.features.items() if feature.is_picture)
        return tuple(camera_name(key) for key in pictures)


def camera_name(key: str) -> str:
    """Name of a camera: its key without "observation.images."."""
    return key.removeprefix(IMAGES) if key.startswith(IMAGES) else key.removeprefix("observation.")


@dataclass(frozen=True, kw_only=True)
class InfoFile:
    """The content of info.json.

    Args:
        root: Folder of the data set.
        version: codebase_version.
        fps: Frames per second.
        robot_type: Name of the robot.
        features: Columns that are read, index columns left out.
        left_out: Columns that are not read, with the reason.
        total_episodes: Declared number of episodes.
        total_frames: Declared number of frames.
        chunks_size: Files in a folder.
        data_path: Template of the tables' names.
        video_path: Template of the videos' names, "" without videos.
    """

    root: Path
    version: str
    fps: float
    robot_type: str
    features: Mapping[str, Feature]
    left_out: Mapping[str, str]
    total_episodes: int
    total_frames: int
    chunks_size: int
    data_path: str
    video_path: str

    def info(self, kind: str, tasks: tuple[str, ...]) -> DatasetInfo:
        """As all data sets tell it."""
        return DatasetInfo(
            version=f"{kind} {self.version}",
            fps=self.fps,
            robot_type=self.robot_type,
            features=self.features,
            tasks=tasks,
            left_out=self.left_out,
        )

    @property
    def video_keys(self) -> tuple[str, ...]:
        """Keys of the cameras that are videos."""
        return tuple(key for key, feature in self.features.items() if feature.dtype == "video")

    def path(self, template: str, **values: int | str) -> Path:
        """A file of the data set.

        Raises:
            InputError: The name that results leads out of the data set.
        """
        name = template.format(**values)
        if _escapes(name):
            raise InputError(f"the path {name!r} leads out of the data set", where=str(self.root / INFO))
        return self.root / name


def _escapes(name: str) -> bool:
    """Whether a name is absolute or climbs; what a link inside points to is its owner's choice (hub caches link)."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name


def read_beside(root: Path, name: str, *, where: str) -> bytes:
    """A picture that a table names instead of holding it.

    Raises:
        InputError: The name leads out of the data set, or the file is missing or absurdly large.
    """
    if not name or _escapes(name):
        raise InputError(f"the path {name!r} leads out of the data set", where=where)
    try:
        if (size := (root / name).stat().st_size) > MAX_JSON_BYTES:
            raise InputError(f"{name} has {size} bytes", where=where, expected=f"<= {MAX_JSON_BYTES}")
        return (root / name).read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror}", where=where) from error


def load_json(path: Path) -> Any:
    """The content of a JSON file of a sane size.

    Raises:
        InputError: It is missing, too large, or no JSON.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(
                f"has {path.stat().st_size} bytes", where=str(path), expected=f"<= {MAX_JSON_BYTES}"
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error


def read_info(root: Path) -> InfoFile:
    """meta/info.json, checked.

    Raises:
        InputError: It is missing or damaged, or declares what cannot be; the message names key and value.
    """
    path = root / INFO
    table = load_json(path)
    if not isinstance(table, Mapping) or not isinstance(table.get("features"), Mapping):
        raise InputError("not the info.json of a LeRobot data set", where=str(path), expected="features")
    if len(table["features"]) > MAX_FEATURES:
        raise InputError(f"{len(table['features'])} features", where=str(path), expected=f"<= {MAX_FEATURES}")
    features: dict[str, Feature] = {}
    left_out: dict[str, str] = {}
    for key, entry in table["features"].items():
        found = feature_from_json(entry, where=f"{path}: {key}")
        if isinstance(found, str):
            left_out[key] = found
        elif key not in INDEX:
            features[key] = found
    version = str(table.get("codebase_version", ""))
    fields = {"episode_chunk", "episode_index"} if version.startswith("v2") else {"chunk_index", "file_index"}
    return InfoFile(
        root=root,
        version=version,
        fps=_fps(table.get("fps"), path),
        robot_type=str(table.get("robot_type") or ""),
        features=features,
        left_out=left_out,
        total_episodes=_whole(table, "total_episodes", 0, MAX_EPISODES, path),
        total_frames=_whole(table, "total_frames", 0, MAX_FRAMES, path),
        chunks_size=_whole({"chunks_size": 1000, **table}, "chunks_size", 1, 10**9, path),
        data_path=_template(table.get("data_path"), fields, path),
        video_path=_template(table.get("video_path") or "", fields | {"video_key"}, path),
    )


def _whole(table: Mapping[str, Any], key: str, low: int, high: int, path: Path) -> int:
    value: Any = table.get(key)
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"{key} is {value!r}", where=str(path), expected=f"{low}..{high:g}")
    return int(value)


def _fps(value: Any, path: Path) -> float:
    if type(value) not in (int, float) or not 0 < value <= MAX_FPS:
        raise InputError(f"fps is {value!r}", where=str(path), expected=f"above 0, at most {MAX_FPS:g}")
    return float(value)


def _template(template: Any, fields: set[str], path: Path) -> str:
    """A template that can name nothing but files below the data set: known fields, whole numbers, no way up.

    Raises:
        InputError: It is none.
    """
    expected = "a relative path of " + ", ".join(f"{{{name}}}" for name in sorted(fields))
    if not isinstance(template, str) or len(template) > 1000:
        raise InputError(f"a path template is {template!r}", where=str(path), expected=expected)
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InputError(f"a path template is {template!r}", where=str(path), expected=expected) from error
    for _, name, form, conversion in parts:
        simple = form in ("", "s", None) if name == "video_key" else _is_padding(form)
        if (name is not None and name not in fields) or not simple or conversion:
            raise InputError(
                f"the path template {template!r} names {name!r}", where=str(path), expected=expected
            )
    if template and _escapes("".join(literal + "x" for literal, *_ in parts)):
        raise InputError(
            f"the path template {template!r} leads out of the data set", where=str(path), expected=expected
        )
    return template


def _is_padding(form: str | None) -> bool:
    return not form or (form.removesuffix("d").lstrip("0").isdigit() and len(form) <= 4) or form == "d"
