"""What lies in an HDF5 file of an episode, read as if a stranger had written it: no links, no sizes on trust."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import UInt8

from polydit.core.errors import InputError
from polydit.robopolicy.data.features import MAX_SIDE, MAX_VECTOR
from polydit.robopolicy.data.pictures import check_shape, decode_picture

MAX_ARRAY_BYTES = 1 << 32


@dataclass(frozen=True, kw_only=True)
class HDF5Frames:
    """Pictures of one camera in one file.

    Args:
        path: The file.
        name: The dataset in it.
        first: Leading frames that are dropped.
        count: Frames after them.
        shape: Height, width and 3.
        swap: Whether red and blue of encoded pictures are exchanged.
    """

    path: Path
    name: str
    first: int
    count: int
    shape: tuple[int, int, int]
    swap: bool

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        if not 0 <= index < self.count:
            raise IndexError(index)
        with open_file(self.path) as file:
            return self._picture(_dataset(file, self.name, self.path), index)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        with open_file(self.path) as file:
            dataset = _dataset(file, self.name, self.path)
            for index in range(self.count):
                yield self._picture(dataset, index)

    def _picture(self, dataset: h5py.Dataset, index: int) -> UInt8[np.ndarray, "h w 3"]:
        where = f"{self.path}: {self.name}, frame {index}"
        if dataset.ndim == 4:
            return np.asarray(dataset[self.first + index])
        decoded = decode_picture(_content(dataset, self.first + index), where=where)
        picture = check_shape(decoded, self.shape, where=where)
        return np.ascontiguousarray(picture[..., ::-1]) if self.swap else picture


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot be read: {str(error).partition('(')[0].strip()}", where=str(path)
        ) from error


def _object(file: h5py.File, name: str, path: Path) -> Any:
    """What lies in the file itself under that name; a link may point at any file of the machine."""
    place: Any = file
    for part in name.split("/"):
        link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
        if link is None:
            raise InputError(f"has no {name}", where=str(path), expected="observations/qpos and action")
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{name} is a link, which is not followed", where=str(path))
        place = place[part]
    return place


def group_names(file: h5py.File, name: str, path: Path) -> list[str]:
    if name not in file:
        return []
    group = _object(file, name, path)
    return list(group) if isinstance(group, h5py.Group) else []


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    dataset = _object(file, name, path)
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise InputError(f"{name} is no dataset of this file", where=str(path))
    return dataset


def picture_shape(file: h5py.File, name: str, path: Path) -> tuple[int, tuple[int, int, int]]:
    """How many pictures there are, and their height, width and 3; the first of encoded ones is decoded for it.

    Raises:
        InputError: There are none, or they are no pictures in colour.
    """
    dataset = _dataset(file, name, path)
    if not len(dataset):
        raise InputError(f"{name} has no pictures", where=str(path))
    shape: tuple[int, ...]
    if dataset.ndim == 4:
        shape = dataset.shape[1:] if dataset.dtype == np.uint8 else ()
    else:
        shape = decode_picture(_content(dataset, 0), where=f"{path}: {name}").shape
    if len(shape) != 3 or shape[2] != 3 or max(shape) > MAX_SIDE:
        raise InputError(
            f"{name} is {dataset.dtype} {list(dataset.shape)}", where=str(path), expected="pictures"
        )
    height, width, channels = (int(n) for n in shape)
    return len(dataset), (height, width, channels)


def number_rows(file: h5py.File, name: str, path: Path) -> np.ndarray:
    """Rows of numbers, float32; the size that the header declares is checked first."""
    dataset = _dataset(file, name, path)
    if dataset.ndim != 2 or dataset.dtype.kind not in "fiub" or not 0 < dataset.shape[1] <= MAX_VECTOR:
        raise InputError(
            f"{name} is {dataset.dtype} {list(dataset.shape)}", where=str(path), expected="(frames, numbers)"
        )
    if dataset.nbytes > MAX_ARRAY_BYTES:
        problem = f"{name} of {dataset.nbytes / 2**30:.1f} GiB"
        raise InputError(problem, where=str(path), expected=f"<= {MAX_ARRAY_BYTES >> 30} GiB")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused for that
        return np.asarray(dataset[()]).astype(np.float32)


def _content(dataset: h5py.Dataset, index: int) -> bytes:
    """The bytes of an encoded picture, whichever way they are kept: text, or numbers with zeros behind."""
    if dataset.ndim > 2 or (dataset.ndim == 2 and dataset.shape[1] > MAX_ARRAY_BYTES >> 4):
        raise InputError(f"{dataset.name} is {dataset.dtype} {list(dataset.shape)}", expected="pictures")
    value = dataset[index]
    return bytes(value) if isinstance(value, bytes) else np.asarray(value, dtype=np.uint8).tobytes()


def text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.reshape(-1)[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
