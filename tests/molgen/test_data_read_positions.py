"""Readers of molecules without bonds: XYZ, extended XYZ and npz; a bad row is named and the others go on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.molgen.data.structure import Rejected

Read, Write = Callable[..., Any], Callable[[str, str], Path]


# --- XYZ ------------------------------------------------------------------------------------------------


WATER = "3\n{comment}\nO 0 0 0.12\nH 0 0.76 -0.48\nH 0 -0.76 -0.48\n"


def test_xyz_all_frames(read: Read, write: Write) -> None:
    path = write(
        "a.xyz",
        WATER.format(comment="")
        + "\n"
        + WATER.format(comment="a remark")
        + WATER.format(comment="id=w3 gap=0.5"),
    )
    entries = read(path).good
    assert [entry.id for entry in entries] == ["a-1", "a-2", "w3"]
    assert entries[2].properties == {"gap": 0.5}
    assert all(entry.kind == "molecule" for entry in entries)


def test_xyz_with_atomic_numbers_and_further_columns(read: Read, write: Write) -> None:
    (entry,) = read(write("a.xyz", "2\n\n6 0 0 0 0.1 9\n8 0 0 1.128D0 -0.1 9\n")).good
    assert entry.numbers.tolist() == [6, 8]
    assert entry.positions[1, 2] == 1.128


@pytest.mark.parametrize(
    ("middle", "reason"),
    [
        ("1000000000\nhuge\nC 0 0 0\n", "too many"),
        (f"{10**30}\nhuge\nC 0 0 0\n", "too many"),
        ("3\nunknown element\nC 0 0 0\nXx 0 0 0\nH 0 0 1\n", "atom 2"),
        ("2\nno number\nC 0 0 0\nH 0 zero 0\n", "atom 2"),
        ("2\nnan\nC 0 0 0\nH 0 nan 0\n", "not a finite number"),
        ("2\ncolumn missing\nC 0 0 0\nH 0 0\n", "atom 2"),
        ("5\nshort\nC 0 0 0\nH 0 0 1\n", "ends after 2 of 5"),
        ("0\nempty\n", "no atoms"),
        ("not a frame\nat all\n", "not a number of atoms"),
        ('1\nLattice="1 0 0 0 1 0"\nC 0 0 0\n', "Lattice"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" pbc="T T F"\nC 0 0 0\n', "one or two directions"),
        ("1\nProperties=species:S:1:force:R:3\nC 0 0 0\n", "no element or position"),
        ('1\nLattice="4 0 0 0 4 0 0 0 4" pbc=maybe\nC 0 0 0\n', "pbc=maybe"),
        (f'1\nx="_JSON {"[" * 100_000}"\nC 0 0 0\n', "no extxyz comment"),
    ],
)
def test_xyz_bad_frame_is_named_and_the_others_go_on(
    read: Read, write: Write, middle: str, reason: str
) -> None:
    path = write("a.xyz", WATER.format(comment="first") + middle + WATER.format(comment="last"))
    entries = read(path)
    assert [entry.formula for entry in entries.good] == ["H2O", "H2O"]
    assert [entry.source for entry in entries.bad] == [f"{path}:2"]
    assert reason in entries.bad[0].reason.replace("expected a number", "not a number")


def test_xyz_that_ends_early(read: Read, write: Write) -> None:
    (entry,) = read(write("a.xyz", "3\n\nO 0 0 0\n"))
    assert isinstance(entry, Rejected) and entry.reason == "it ends after 1 of 3 atoms"


def test_extxyz_decides_by_lattice_and_pbc(read: Read, write: Write, tmp_path: Path) -> None:
    lattice = 'Lattice="4 0 0 1 4 0 0 0 4"'
    frames = [
        f"1\n{lattice} Properties=species:S:1:pos:R:3\nC 1 0 0\n",
        f'1\n{lattice} pbc="F F F" Properties=species:S:1:pos:R:3\nC 1 0 0\n',
        f"1\n{lattice} Properties=id:I:1:pos:R:3:Z:I:1 spacegroup=221\n7 1 0 0 6\n",
        '1\nProperties=species:S:1:pos:R:3 energy=-1.5 pbc="F F F"\nC 1 0 0\n',
    ]
    entries = read(write("a.extxyz", "".join(frames))).good
    assert [entry.kind for entry in entries] == ["crystal", "molecule", "crystal", "molecule"]
    assert entries[0].cell is not None and entries[0].cell.tolist() == [[4, 0, 0], [1, 4, 0], [0, 0, 4]]
    assert entries[2].numbers.tolist() == [6] and entries[2].spacegroup == 221
    assert entries[3].properties == {"energy": -1.5}
    assert [entry.kind for entry in read(tmp_path / "a.extxyz", kind="crystal").good] == ["crystal"] * 2


# --- npz ------------------------------------------------------------------------------------------------


def save_npz(path: Path, **changes: np.ndarray) -> Path:
    arrays = {
        "positions": np.arange(15, dtype=np.float32).reshape(5, 3),
        "atomic_numbers": np.array([8, 1, 1, 6, 8], np.int8),
        "offsets": np.array([0, 3, 5]),
        "group": np.array([3, -1], np.int16),
    }
    np.savez_compressed(path, **{**arrays, **changes})
    return path


def test_npz(read: Read, tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz")
    water, carbon_monoxide = read(path).good
    assert (water.id, water.formula, water.properties) == ("a-1", "H2O", {"group": 3})
    assert (carbon_monoxide.formula, carbon_monoxide.source) == ("CO", f"{path}:2")
    np.testing.assert_array_equal(carbon_monoxide.positions, [[9, 10, 11], [12, 13, 14]])


def test_npz_bad_row(read: Read, tmp_path: Path) -> None:
    entries = read(save_npz(tmp_path / "a.npz", offsets=np.array([0, 3, 99, 99]), group=np.zeros(3)))
    assert len(entries.good) == 1
    assert "out of order" in entries.bad[0].reason


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"positions": np.zeros((4, 3))}, "shapes do not fit"),
        ({"offsets": np.array([[0, 3, 5]])}, "shapes do not fit"),
        ({"positions": np.array([object()] * 5)}, "Python objects"),
    ],
)
def test_npz_that_is_wrong_as_a_whole(
    read: Read, tmp_path: Path, changes: dict[str, np.ndarray], problem: str
) -> None:
    path = save_npz(tmp_path / "a.npz", **changes)
    with pytest.raises(InputError, match=problem):
        read(path)


def test_npz_sizes_are_checked_before_memory_is_taken(read: Read, tmp_path: Path) -> None:
    """A header that states a terabyte, over a few bytes of data."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**37, 3)}
    )
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("positions.npy", header.getvalue())
    with pytest.raises(InputError, match="GiB"):
        read(path)


def test_npz_without_an_array_or_no_npz(read: Read, write: Write, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", positions=np.zeros((1, 3)))
    with pytest.raises(InputError, match="atomic_numbers"):
        read(tmp_path / "a.npz")
    with pytest.raises(InputError, match="no readable npz"):
        read(write("b.npz", "PK nothing"))
