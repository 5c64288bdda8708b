"""Readers of molecules with bonds: SDF and SMILES; a bad row is named and the others go on."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.molgen.data.readers import read_structures
from polydit.molgen.data.structure import Rejected, Structure

Read, Write = Callable[..., Any], Callable[[str, str], Path]


METHANE = """methane
  made by hand      3D

  5  4  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    0.6300    0.6300    0.6300 H   0  0
   -0.6300   -0.6300    0.6300 H   0  0
    0.6300   -0.6300   -0.6300 H   0  0
   -0.6300    0.6300   -0.6300 H   0  0
  1  2  1  0
  1  3  1  0
  1  4  1  0
  1  5  1  0
M  END
> <energy>
-40.5

> <remark>
by hand

$$$$
"""


FLAT_BENZENE = """
  drawn             2D

  6  6  0  0  0  0  0  0  0  0999 V2000
    1.2990    0.7500    0.0000 C   0  0
    1.2990   -0.7500    0.0000 C   0  0
    0.0000   -1.5000    0.0000 C   0  0
   -1.2990   -0.7500    0.0000 C   0  0
   -1.2990    0.7500    0.0000 C   0  0
    0.0000    1.5000    0.0000 C   0  0
  1  2  2  0
  2  3  1  0
  3  4  2  0
  4  5  1  0
  5  6  2  0
  6  1  1  0
M  END
$$$$
"""


FIVE_BONDS = METHANE.replace("methane", "five bonds").replace("  1  2  1  0", "  1  2  2  0")


# --- SDF ------------------------------------------------------------------------------------------------


def test_sdf_record(read: Read, write: Write, tmp_path: Path) -> None:
    (methane,) = read(write("a.sdf", METHANE))
    assert isinstance(methane, Structure)
    assert (methane.id, methane.kind, methane.formula) == ("methane", "molecule", "CH4")
    assert methane.bonds is not None and methane.bonds.tolist() == [[0, i, 1] for i in range(1, 5)]
    assert methane.charges is not None and not methane.charges.any()
    assert methane.properties == {"energy": -40.5, "remark": "by hand"}
    assert methane.source == f"{tmp_path / 'a.sdf'}:1"
    assert methane.positions[1].tolist() == [0.63, 0.63, 0.63]


def test_sdf_bad_records_are_named_and_the_others_go_on(read: Read, write: Write) -> None:
    broken = METHANE.replace("  5  4  0", "  5  9  0")
    cut = METHANE.partition("M  END")[0] + "$$$$\n"
    path = write("a.sdf", "".join([METHANE, "$$$$\n", broken, "garbage\n$$$$\n", cut, METHANE]))
    entries = read(path)
    assert [isinstance(entry, Structure) for entry in entries] == [True, False, False, False, False, True]
    assert [entry.source for entry in entries.bad] == [f"{path}:{row}" for row in (2, 3, 4, 5)]
    assert entries.bad[0].reason == "the record is empty"
    assert all("mol block" in entry.reason for entry in entries.bad[1:])


def test_sdf_wrong_valence_is_kept_for_the_evaluation(read: Read, write: Write) -> None:
    (molecule,) = read(write("a.sdf", FIVE_BONDS))
    assert isinstance(molecule, Structure)
    assert molecule.bonds is not None and molecule.bonds[0].tolist() == [0, 1, 2]


def test_sdf_drawn_in_two_dimensions_is_embedded(read: Read, write: Write) -> None:
    (benzene,) = read(write("flat.sdf", FLAT_BENZENE))
    assert isinstance(benzene, Structure)
    assert (benzene.id, benzene.formula) == ("flat-1", "C6H6")
    distances = np.linalg.norm(benzene.positions[0] - benzene.positions[[1, 5]], axis=1)
    np.testing.assert_allclose(distances, 1.39, atol=0.02)
    assert benzene.bonds is not None and (benzene.bonds[:, 2] == 12).sum() == 6


def test_sdf_without_final_separator_and_compressed(read: Read, tmp_path: Path) -> None:
    path = tmp_path / "a.sdf.gz"
    path.write_bytes(gzip.compress((METHANE + METHANE.removesuffix("$$$$\n")).encode()))
    assert [entry.formula for entry in read(path).good] == ["CH4", "CH4"]


def test_sdf_of_many_atoms_is_refused_by_its_counts_line(read: Read, write: Write) -> None:
    head = "big\n  x 3D\n\n  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\n"
    (entry,) = read(write("a.sdf", f"{head}M  V30 COUNTS 1000000000 0 0 0 0\nM  END\n$$$$\n"))
    assert isinstance(entry, Rejected) and "too many" in entry.reason


def test_sdf_record_longer_than_its_limit_is_refused(
    read: Read, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polydit.molgen.data.readers.sdf.MAX_RECORD_BYTES", 2000)
    filler = "> <x>\n" + "y" * 100 + "\n\n"
    long = METHANE.removesuffix("$$$$\n") + filler * 100 + "$$$$\n"
    entries = read(write("a.sdf", long + METHANE))
    assert isinstance(entries[0], Rejected) and "longer than" in entries[0].reason
    assert isinstance(entries[1], Structure)


def test_sdf_is_streamed(tmp_path: Path) -> None:
    """The first record is there before the file's end is looked at."""
    path = tmp_path / "a.sdf.gz"
    whole = gzip.compress((METHANE * 3000).encode())
    path.write_bytes(whole[: len(whole) // 2])
    entries = read_structures(path)
    assert isinstance(next(entries), Structure)
    with pytest.raises(InputError, match="compressed data is damaged"):
        list(entries)


# --- SMILES ---------------------------------------------------------------------------------------------


def test_smiles_lines(read: Read, write: Write) -> None:
    path = write("a.smi", "smiles\nCCO ethanol\n# remark\n\nnonsense\nC1CC1\tcyclopropane\nC\n")
    entries = read(path)
    assert [entry.id for entry in entries.good] == ["ethanol", "cyclopropane", "a-7"]
    assert [entry.formula for entry in entries.good] == ["C2H6O", "C3H6", "CH4"]
    assert entries.good[0].properties["smiles"] == "CCO"
    assert [(entry.source, "nonsense" in entry.reason) for entry in entries.bad] == [(f"{path}:5", True)]
    again = read(path).good
    np.testing.assert_array_equal(again[0].positions, entries.good[0].positions)


def test_smiles_that_cannot_be_embedded_or_is_too_large(read: Read, write: Write) -> None:
    path = write("a.smi", f"{'C' * 200}\n{'C' * 3000}\n[Fe]\n")
    reasons = [entry.reason for entry in read(path).bad]
    assert len(reasons) == 3
    assert "too many to embed" in reasons[0]
    assert "longer than" in reasons[1]


def test_csv_of_smiles(read: Read, write: Write) -> None:
    (entry,) = read(write("a.csv", "id,smiles,gap\nm1,CO,0.25\n"))
    assert isinstance(entry, Structure)
    assert (entry.id, entry.formula, entry.properties["gap"]) == ("m1", "CH4O", 0.25)
