"""Any data set that a robot lab keeps: what all readers give, and which one reads what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from polydit.core.errors import InputError
from polydit.robopolicy.data.info import INFO, DatasetInfo, read_info
from polydit.robopolicy.data.statistics import Statistics, number_statistics
from polydit.robopolicy.episode import ACTION, STATE, Episode

FORMATS = "a LeRobotDataset v3.0, v2.1 or v2.0, or HDF5 episodes (a file, or a folder of them)"
STAGING = ".writing"  # where a data set grows before it takes its place


class Dataset(ABC):
    """Episodes of one robot, read when they are asked for.

    A base class, not a protocol: to ask whether an object satisfies a protocol evaluates its properties, and these
    may read every file.
    """

    path: Path
    stored: Statistics | None  # the statistics that it brings; they may be of other data

    @property
    @abstractmethod
    def info(self) -> DatasetInfo:
        """What it is."""

    @property
    @abstractmethod
    def statistics(self) -> Statistics:
        """Statistics of all episodes, by feature."""

    @property
    @abstractmethod
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the data set as a whole, one sentence each."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of episodes."""

    @abstractmethod
    def __getitem__(self, index: int) -> Episode:
        """One episode; raises InputError naming it if it is bad."""


def read_dataset(path: Path) -> Dataset:
    """Opens a data set; episodes are read when they are asked for.

    Args:
        path: See `FORMATS`. HDF5 is read with the defaults of `HDF5Options`; use `HDF5Dataset` for others.

    Raises:
        InputError: There is none, it is of an unknown format or version, or what it declares cannot be.
    """
    path = Path(path)
    if (path / INFO).is_file():
        return _read_lerobot(path)
    if (path / STAGING).is_dir():
        hint = "Run the command that writes it again: it goes on where it stopped"
        raise InputError("this data set is not finished", where=str(path), hint=hint)
    if not path.exists():
        raise InputError("there is no such file or folder", where=str(path))
    from polydit.robopolicy.data.hdf5 import HDF5Dataset, episode_files

    if not episode_files(path):
        raise InputError("no data set is here", where=str(path), expected=FORMATS)
    return HDF5Dataset(path)


def _read_lerobot(root: Path) -> Dataset:
    from polydit.robopolicy.data import lerobot_v3, lerobot_v21

    file = read_info(root)
    if file.version.startswith("v3."):
        return lerobot_v3.read_v3(file)
    if file.version in ("v2.0", "v2.1"):
        return lerobot_v21.read_v21(file)
    raise InputError(
        f"its version is {file.version!r}", where=str(root / INFO), expected="v3.0, v2.1 or v2.0"
    )


def number_of_episodes(dataset: Dataset, limit: int | None) -> int:
    """How many there are, or how many of them are wanted."""
    return len(dataset) if limit is None else min(limit, len(dataset))


def good_episodes(dataset: Dataset) -> Iterator[Episode]:
    """The episodes that can be read."""
    for index in range(len(dataset)):
        try:
            yield dataset[index]
        except InputError:
            continue


def measure(episodes: Iterable[Episode]) -> Statistics:
    """Statistics of all columns of numbers, exactly; pictures are left out.

    Raises:
        InputError: There is no episode.
    """
    columns: dict[str, list[np.ndarray]] = defaultdict(list)
    for episode in episodes:
        for key, rows in {STATE: episode.state, ACTION: episode.action, **episode.extra}.items():
            if rows.dtype.kind in "biuf" and rows.size:
                columns[key].append(rows)
    if not columns:
        raise InputError("no episode can be read, so there are no statistics")
    return Statistics({key: number_statistics(np.concatenate(rows)) for key, rows in columns.items()})
