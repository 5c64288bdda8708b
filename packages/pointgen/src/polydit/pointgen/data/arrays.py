"""Points as rows of numbers: NPY, NPZ and XYZ."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from polydit.core.errors import InputError
from polydit.pointgen.data.headers import MOST_BYTES, MOST_POINTS, check_count

_NAMES = ("points", "pointcloud", "point_cloud", "xyz", "pos", "arr_0")  # arrays of an NPZ that hold clouds
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_SHAPES = "(points, 3) or (clouds, points, 3)"
_FEWEST_BYTES_OF_A_ROW = 6  # "0 0 0" and the end of the line


def read_npy(path: Path) -> np.ndarray:
    """The array of an NPY file, (n, 3) or (m, n, 3); its numbers are read when they are used.

    Raises:
        InputError: It is no such array, has objects in it, is cut off, or holds too many points.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise InputError("it is cut off, or no NPY file of numbers", where=str(path)) from error
    if not isinstance(array, np.ndarray):
        raise InputError("it is an archive, not an array", where=str(path), hint="Name it .npz")
    return _checked(array, path)


def read_npz(path: Path) -> np.ndarray:
    """The array of clouds in an NPZ archive: one of a usual name, or the only array there is.

    Raises:
        InputError: As `read_npy`, or it does not say which array is meant.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            name = next((name for name in _NAMES if name in members), None)
            if name is None and len(members) == 1:
                name = next(iter(members))
            if name is None:
                problem = f"none of its arrays {', '.join(sorted(members))[:200]} is known to hold points"
                raise InputError(problem, where=str(path), expected="one named points")
            if members[name].file_size > MOST_BYTES:
                problem = f"its array {name} has {members[name].file_size:,} bytes"
                raise InputError(problem, where=str(path), expected=f"at most {MOST_BYTES:,}")
            with archive.open(members[name]) as handle:
                version = np.lib.format.read_magic(handle)
                if version not in _HEADERS:
                    raise ValueError(f"version {version}")
                _check_shape(_HEADERS[version](handle)[0], path)  # before memory is taken for it
            with archive.open(members[name]) as handle:
                array = np.lib.format.read_array(handle, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError("it is cut off, or no NPZ file of numbers", where=str(path)) from error
    return _checked(array, path)


def _checked(array: np.ndarray, path: Path) -> np.ndarray:
    _check_shape(array.shape, path)
    if array.dtype.kind not in "fiu":
        raise InputError(f"it holds {array.dtype}", where=str(path), expected="numbers")
    return array


def _check_shape(shape: tuple[int, ...], path: Path) -> None:
    if len(shape) not in (2, 3) or shape[-1] != 3:
        raise InputError(f"an array of shape {shape} is no cloud", where=str(path), expected=_SHAPES)
    check_count(shape[-2], "points", path)
    if np.prod(shape, dtype=np.float64) * 8 > MOST_BYTES:
        raise InputError(f"an array of shape {shape} is too large", where=str(path))


def read_xyz(path: Path) -> np.ndarray:
    """Rows "x y z", separated by blanks or commas; further columns are passed over, and so are remarks after #.

    Raises:
        InputError: A row has fewer than three numbers, or there are too many or none.
    """
    if path.stat().st_size > _FEWEST_BYTES_OF_A_ROW * MOST_POINTS:
        with path.open("rb") as handle:
            check_count(sum(1 for _ in handle), "rows", path)
    try:
        with path.open(encoding="utf-8", errors="replace") as text:
            rows = [line for line in _rows(text) if line]
            if not rows:
                raise InputError("it has no rows", where=str(path))
            return np.loadtxt(rows, dtype=np.float64, usecols=(0, 1, 2), ndmin=2, comments=None)
    except ValueError as error:
        raise InputError(f"a row is not as expected ({error})", where=str(path), expected="x y z") from error


def _rows(text: Iterator[str]) -> Iterator[str]:
    for line in text:
        yield line.partition("#")[0].replace(",", " ").replace(";", " ").strip()
