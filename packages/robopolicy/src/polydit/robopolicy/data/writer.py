"""Writing a LeRobotDataset v3.0 or v2.1, episode by episode, safe against a kill at any moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file, naming_write_errors, sync_folder
from polydit.core.jobs.lock import FolderLock
from polydit.robopolicy.data.encoding import check_size
from polydit.robopolicy.data.features import INDEX, Feature, feature_from_json
from polydit.robopolicy.data.info import INFO, MAX_FPS, load_json
from polydit.robopolicy.data.readers import STAGING
from polydit.robopolicy.data.staging import Staged, Staging, columns_of
from polydit.robopolicy.episode import ACTION, Episode

Version = Literal["v3.0", "v2.1"]

RECIPE = "data.json"  # how the data were made; ours, beside LeRobot's files
_OURS = ("meta", "data", "videos", RECIPE)
_SETTINGS = "writing.json"
_DATA_MB, _VIDEO_MB = 100.0, 200.0  # size at which LeRobot starts a new file


class LeRobotWriter:
    """Writes episodes into a data set; used in a `with` block, at whose end the data set takes its place.

    An episode exists when `add` returns. If the block is left by an error or the process dies, what was added waits in
    the folder `.writing`, and a writer with `resume` and the same settings goes on from there.

    Args:
        out: Folder of the data set; made if it is missing.
        fps: Frames per second of every episode.
        features: Columns by key, index columns left out; `features_of` makes them from an episode.
        robot_type: Name of the robot.
        version: Format.
        recipe: How the data are made; stored in data.json if it is given, and compared when resuming.
        about: What else data.json says, such as versions; not compared.
        resume: Go on with what an earlier writer left; else it is discarded.
        overwrite: Replace a data set that is there.
        data_mb: Size in MiB at which v3.0 starts a new table.
        video_mb: The same for videos.

    Raises:
        InputError: A data set is there, other files are in the way, another process writes here, an earlier writer had
            other settings (they are named), or the features cannot be written.
    """

    def __init__(
        self,
        out: Path,
        *,
        fps: float,
        features: Mapping[str, Feature],
        robot_type: str,
        version: Version = "v3.0",
        recipe: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
        resume: bool = False,
        overwrite: bool = False,
        data_mb: float = _DATA_MB,
        video_mb: float = _VIDEO_MB,
    ) -> None:
        self.out, self.version, self.recipe, self.about = Path(out), version, recipe, dict(about or {})
        self.sizes_mb = (data_mb, video_mb)
        self.robot_type = robot_type
        _check(fps, features)
        _refuse_foreign(self.out, overwrite)
        folder = self.out / STAGING
        with naming_write_errors(self.out):
            self._lock: FolderLock | None = _make_and_lock(folder)
        try:
            self._staging = Staging(folder, fps=float(fps), features=features)
            with naming_write_errors(self.out):
                self._begin(resume, overwrite)
        except BaseException:
            self._release()
            raise

    def _begin(self, resume: bool, overwrite: bool) -> None:
        settings = self._settings()
        path = self._staging.folder / _SETTINGS
        if resume and not overwrite and path.is_file():
            _refuse_other(load_json(path), settings, path)
            self._staging.load()
            return
        for entry in self._staging.folder.iterdir():
            if entry.name != ".lock":
                entry.unlink()
        with atomic_file(path) as handle:
            handle.write(json.dumps(settings).encode())
        if overwrite:
            clear(self.out)

    def _settings(self) -> dict[str, Any]:
        features = {key: feature.to_json() for key, feature in self._staging.features.items()}
        settings = {
            "version": self.version,
            "fps": self._staging.fps,
            "robot_type": self.robot_type,
            "features": features,
            "recipe": self.recipe,
        }
        return dict(json.loads(json.dumps(settings)))

    def __enter__(self) -> LeRobotWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            self._release()
            if not len(self):  # there is nothing to go on with
                remove(self._staging.folder)

    @property
    def episodes(self) -> Sequence[Staged]:
        """What was added so far, also by the writer that this one resumes."""
        return self._staging.episodes

    def __len__(self) -> int:
        """Number of episodes so far."""
        return len(self._staging.episodes)

    def add(self, episode: Episode, note: Mapping[str, Any] | None = None) -> None:
        """Add an episode; its `index` is replaced by its place in this data set.

        Args:
            episode: The episode.
            note: What to remember of it until the data set is finished, such as the seed it was made with.

        Raises:
            InputError: It does not fit the features or the fps, holds no frame or a number that is not finite. The data
                set is as before.
            PolyditError: Writing failed.
        """
        if not len(episode):
            raise InputError("has no frames", where=episode.where)
        if abs(episode.fps - self._staging.fps) > 1e-6 * self._staging.fps:
            problem = f"has {episode.fps:g} frames per second"
            raise InputError(problem, where=episode.where, expected=f"{self._staging.fps:g} as the data set")
        columns = columns_of(episode, self._staging.features)
        with naming_write_errors(self.out):
            self._staging.add(episode, columns, dict(note or {}))

    def finish(self) -> None:
        """Let the data set take its place; the end of a `with` block does this.

        Raises:
            InputError: There is no episode.
            PolyditError: Writing failed; a writer with `resume` tries again.
        """
        from polydit.robopolicy.data.write_v3 import write_v3
        from polydit.robopolicy.data.write_v21 import write_v21

        if not len(self):
            raise InputError("no episode was written", where=str(self.out))
        with naming_write_errors(self.out):
            clear(self.out)  # what a call that was killed right here left
            if self.recipe is not None:
                notes = [dict(staged.note) for staged in self.episodes]
                content = {"recipe": self._settings()["recipe"], **self.about, "episodes": notes}
                with atomic_file(self.out / RECIPE) as handle:
                    handle.write(f"{json.dumps(content, indent=1)}\n".encode())
            if self.version == "v3.0":
                write_v3(self.out, self._staging, self.robot_type, *self.sizes_mb)
            else:
                write_v21(self.out, self._staging, self.robot_type)
            for folder in [self.out, *(path for path in self.out.rglob("*") if path.is_dir())]:
                sync_folder(folder)  # all names are on the disk before what they were made from goes
            self._release()
            remove(self._staging.folder)

    def _release(self) -> None:
        if self._lock is not None:
            lock, self._lock = self._lock, None
            lock.release()


def begun(out: Path) -> tuple[float, dict[str, Feature]] | None:
    """The fps and features of a data set that an interrupted writer left, or None if there is none.

    Raises:
        InputError: Its settings are damaged.
    """
    path = out / STAGING / _SETTINGS
    if not path.is_file():
        return None
    settings = load_json(path)
    try:
        found = {
            key: feature_from_json(entry, where=f"{path}: {key}")
            for key, entry in settings["features"].items()
        }
        features = {key: feature for key, feature in found.items() if isinstance(feature, Feature)}
        return float(settings["fps"]), features
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            "a record of ours is damaged", where=str(path), hint="Start again with --overwrite"
        ) from error


def _check(fps: float, features: Mapping[str, Feature]) -> None:
    if not 0 < fps <= MAX_FPS:
        raise InputError(f"fps is {fps}", expected=f"above 0, at most {MAX_FPS:g}")
    if ACTION not in features:
        raise InputError(f"the features lack {ACTION!r}")
    if reserved := features.keys() & INDEX.keys():
        raise InputError(f"the feature {min(reserved)!r} is written by itself")
    for key, feature in features.items():
        if "/" in key or not key.isprintable():
            raise InputError(f"the feature {key!r} cannot be a file name", expected="letters, digits, . _ -")
        if feature.dtype == "video":
            check_size(feature.shape, where=key)


def _refuse_foreign(out: Path, overwrite: bool) -> None:
    """A data set is replaced only when asked; what is not one, or not finished by us, never."""
    where = f"--out {out}"
    if out.exists() and not out.is_dir():
        raise InputError("is a file, not a folder", where=where)
    if (out / INFO).exists():
        if not overwrite:
            raise InputError("a data set is there already", where=where, hint="Replace it with --overwrite")
        if "codebase_version" not in load_json(out / INFO):
            raise InputError(f"{INFO} is not of a LeRobot data set", where=where, hint="Choose another --out")
    elif not (out / STAGING).is_dir() and (there := [name for name in _OURS if (out / name).exists()]):
        raise InputError(f"holds {there[0]} but is no data set", where=where, hint="Choose another --out")


def _make_and_lock(folder: Path) -> FolderLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=f"--out {folder.parent}") from error
    return FolderLock(folder)


def _refuse_other(earlier: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
    """An interrupted data set is gone on with only by the same settings."""
    changed = [key for key in settings if key != "recipe" and earlier.get(key) != settings[key]]
    before, now = earlier.get("recipe") or {}, settings["recipe"] or {}
    changed += [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        hint = "Give the same settings to go on, or start again with --overwrite"
        problem = f"was begun with other settings: {', '.join(changed)}"
        raise InputError(problem, where=str(path.parent.parent), hint=hint)


def clear(out: Path) -> None:
    """Removes a data set; without info.json, which goes first, the rest is none."""
    for name in (INFO, *_OURS):
        remove(out / name)


def remove(path: Path) -> None:
    """Removes a file or folder, if it is there; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
