"""npz archives of many molecules: `positions` (sum n, 3) Å, `atomic_numbers` (sum n), `offsets` (molecules + 1)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from polydit.core.errors import InputError
from polydit.molgen.data.readers.text import ByteStream, Records, rejected
from polydit.molgen.data.structure import Structure

MAX_ARRAY_BYTES = 2**31
REQUIRED = ("positions", "atomic_numbers", "offsets")


def read_npz(path: Path) -> Records:
    """Molecule i has the atoms offsets[i] to offsets[i + 1]; further arrays of one number per molecule are properties.

    Raises:
        InputError: The file is no npz, an array is missing, too large, of Python objects or of a wrong shape.
    """
    arrays = load_arrays(path)
    missing = [name for name in REQUIRED if name not in arrays]
    if missing:
        raise InputError(f"no array {missing[0]!r}", where=str(path), expected=", ".join(REQUIRED))
    positions, numbers, offsets = (arrays[name] for name in REQUIRED)
    if positions.shape != (len(numbers), 3) or numbers.ndim != 1 or offsets.ndim != 1 or not len(offsets):
        shapes = ", ".join(f"{name} {arrays[name].shape}" for name in REQUIRED)
        raise InputError(
            f"shapes do not fit: {shapes}", where=str(path), expected="(sum n, 3), (sum n), (molecules + 1)"
        )
    count = len(offsets) - 1
    extra = {
        k: v
        for k, v in arrays.items()
        if k not in REQUIRED and v.shape == (count,) and v.dtype.kind in "iufU"
    }
    for row in range(count):
        source = f"{path}:{row + 1}"
        start, end = int(offsets[row]), int(offsets[row + 1])
        try:
            if not 0 <= start <= end <= len(numbers):
                raise InputError(
                    f"its offsets {start}..{end} are out of order", expected=f"0..{len(numbers)}"
                )
            yield Structure(
                id=f"{path.stem}-{row + 1}",
                numbers=numbers[start:end],
                positions=positions[start:end],
                source=source,
                properties={name: values[row].item() for name, values in extra.items()},
            )
        except InputError as error:
            yield rejected(source, error)


def load_arrays(path: Path) -> Mapping[str, np.ndarray]:
    """All arrays of an npz without pickle; the sizes that the headers state are checked before they are read.

    Raises:
        InputError: As `read_npz`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    _check_size(stream, f"{path}:{member.filename}")
        with np.load(path, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"it is no readable npz: {error}", where=str(path)) from error


def _check_size(stream: ByteStream, where: str) -> None:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise InputError("an array of Python objects is not read", where=where, expected="numbers")
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    if size > MAX_ARRAY_BYTES:
        raise InputError(
            f"an array of {size / 2**30:.1f} GiB", where=where, expected=f"<= {MAX_ARRAY_BYTES >> 30} GiB"
        )
