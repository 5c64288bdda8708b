"""Readers of molecules: SDF, SMILES, XYZ, npz, QM9; a bad row is named and the others go on."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.molgen.data.readers import read_structures
from polydit.molgen.data.readers.qm9 import uncharacterized
from polydit.molgen.data.structure import Rejected, Structure

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
# The first molecules of QM9 as figshare hands them out (values shortened), with its *^ exponents.
QM9_METHANE = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t\
0.5048\t35.3641\t0.044749\t-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 0.0019761204\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""
QM9_AMMONIA = """4
gdb 2\t293.60975\t293.54111\t191.39397\t1.6256\t9.46\t-0.257\t0.0829\t\
0.3399\t26.1563\t0.034358\t-56.525887\t-56.523026\t-56.522082\t-56.544961\t6.316\t
N\t-0.0404260543\t 1.0241077531\t 0.0625637998\t-0.707143
H\t 0.0172574639\t 0.0125452063\t-0.0273771593\t 0.235712
H\t 0.9157893661\t 1.3587451948\t-2.8755607*^-2\t 0.235712
H\t-0.5202777357\t 1.3435321258\t-0.7755426124\t 0.235712
1103.8733\t1684.1158\t1684.3072\t3458.7145\t3597.8480\t3597.8571
N\tN\t
InChI=1S/H3N/h1H3\tInChI=1S/H3N/h1H3
"""
UNCHARACTERIZED = """==================
The molecules below failed the consistency check.

 Index     Input      Output
==================
     2   N   [NH4]   0.1
  1234   C   [CH2]   0.2
3054 compounds
"""


def read(path: Path, **options: object) -> list[Structure | Rejected]:
    return list(read_structures(path, **options))


def good(entries: list[Structure | Rejected]) -> list[Structure]:
    return [entry for entry in entries if isinstance(entry, Structure)]


def bad(entries: list[Structure | Rejected]) -> list[Rejected]:
    return [entry for entry in entries if isinstance(entry, Rejected)]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


# --- SDF ------------------------------------------------------------------------------------------------


def test_sdf_record(tmp_path: Path) -> None:
    (methane,) = read(write(tmp_path, "a.sdf", METHANE))
    assert isinstance(methane, Structure)
    assert (methane.id, methane.kind, methane.formula) == ("methane", "molecule", "CH4")
    assert methane.bonds is not None and methane.bonds.tolist() == [[0, i, 1] for i in range(1, 5)]
    assert methane.charges is not None and not methane.charges.any()
    assert methane.properties == {"energy": -40.5, "remark": "by hand"}
    assert methane.source == f"{tmp_path / 'a.sdf'}:1"
    assert methane.positions[1].tolist() == [0.63, 0.63, 0.63]


def test_sdf_bad_records_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    broken = METHANE.replace("  5  4  0", "  5  9  0")
    cut = METHANE.partition("M  END")[0] + "$$$$\n"
    path = write(tmp_path, "a.sdf", "".join([METHANE, "$$$$\n", broken, "garbage\n$$$$\n", cut, METHANE]))
    entries = read(path)
    assert [isinstance(entry, Structure) for entry in entries] == [True, False, False, False, False, True]
    assert [entry.source for entry in bad(entries)] == [f"{path}:{row}" for row in (2, 3, 4, 5)]
    assert bad(entries)[0].reason == "the record is empty"
    assert all("mol block" in entry.reason for entry in bad(entries)[1:])


def test_sdf_wrong_valence_is_kept_for_the_evaluation(tmp_path: Path) -> None:
    (molecule,) = read(write(tmp_path, "a.sdf", FIVE_BONDS))
    assert isinstance(molecule, Structure)
    assert molecule.bonds is not None and molecule.bonds[0].tolist() == [0, 1, 2]


def test_sdf_drawn_in_two_dimensions_is_embedded(tmp_path: Path) -> None:
    (benzene,) = read(write(tmp_path, "flat.sdf", FLAT_BENZENE))
    assert isinstance(benzene, Structure)
    assert (benzene.id, benzene.formula) == ("flat-1", "C6H6")
    distances = np.linalg.norm(benzene.positions[0] - benzene.positions[[1, 5]], axis=1)
    np.testing.assert_allclose(distances, 1.39, atol=0.02)
    assert benzene.bonds is not None and (benzene.bonds[:, 2] == 12).sum() == 6


def test_sdf_without_final_separator_and_compressed(tmp_path: Path) -> None:
    path = tmp_path / "a.sdf.gz"
    path.write_bytes(gzip.compress((METHANE + METHANE.removesuffix("$$$$\n")).encode()))
    assert [entry.formula for entry in good(read(path))] == ["CH4", "CH4"]


def test_sdf_of_many_atoms_is_refused_by_its_counts_line(tmp_path: Path) -> None:
    head = "big\n  x 3D\n\n  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\n"
    (entry,) = read(write(tmp_path, "a.sdf", f"{head}M  V30 COUNTS 1000000000 0 0 0 0\nM  END\n$$$$\n"))
    assert isinstance(entry, Rejected) and "too many" in entry.reason


def test_sdf_record_longer_than_its_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polydit.molgen.data.readers.sdf.MAX_RECORD_BYTES", 2000)
    filler = "> <x>\n" + "y" * 100 + "\n\n"
    long = METHANE.removesuffix("$$$$\n") + filler * 100 + "$$$$\n"
    entries = read(write(tmp_path, "a.sdf", long + METHANE))
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


def test_smiles_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "a.smi", "smiles\nCCO ethanol\n# remark\n\nnonsense\nC1CC1\tcyclopropane\nC\n")
    entries = read(path)
    assert [entry.id for entry in good(entries)] == ["ethanol", "cyclopropane", "a-7"]
    assert [entry.formula for entry in good(entries)] == ["C2H6O", "C3H6", "CH4"]
    assert good(entries)[0].properties["smiles"] == "CCO"
    assert [(entry.source, "nonsense" in entry.reason) for entry in bad(entries)] == [(f"{path}:5", True)]
    again = good(read(path))
    np.testing.assert_array_equal(again[0].positions, good(entries)[0].positions)


def test_smiles_that_cannot_be_embedded_or_is_too_large(tmp_path: Path) -> None:
    path = write(tmp_path, "a.smi", f"{'C' * 200}\n{'C' * 3000}\n[Fe]\n")
    reasons = [entry.reason for entry in bad(read(path))]
    assert len(reasons) == 3
    assert "too many to embed" in reasons[0]
    assert "longer than" in reasons[1]


def test_csv_of_smiles(tmp_path: Path) -> None:
    (entry,) = read(write(tmp_path, "a.csv", "id,smiles,gap\nm1,CO,0.25\n"))
    assert isinstance(entry, Structure)
    assert (entry.id, entry.formula, entry.properties["gap"]) == ("m1", "CH4O", 0.25)


# --- XYZ ------------------------------------------------------------------------------------------------

WATER = "3\n{comment}\nO 0 0 0.12\nH 0 0.76 -0.48\nH 0 -0.76 -0.48\n"


def test_xyz_all_frames(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "a.xyz",
        WATER.format(comment="")
        + "\n"
        + WATER.format(comment="a remark")
        + WATER.format(comment="id=w3 gap=0.5"),
    )
    entries = good(read(path))
    assert [entry.id for entry in entries] == ["a-1", "a-2", "w3"]
    assert entries[2].properties == {"gap": 0.5}
    assert all(entry.kind == "molecule" for entry in entries)


def test_xyz_with_atomic_numbers_and_further_columns(tmp_path: Path) -> None:
    (entry,) = good(read(write(tmp_path, "a.xyz", "2\n\n6 0 0 0 0.1 9\n8 0 0 1.128D0 -0.1 9\n")))
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
def test_xyz_bad_frame_is_named_and_the_others_go_on(tmp_path: Path, middle: str, reason: str) -> None:
    path = write(tmp_path, "a.xyz", WATER.format(comment="first") + middle + WATER.format(comment="last"))
    entries = read(path)
    assert [entry.formula for entry in good(entries)] == ["H2O", "H2O"]
    assert [entry.source for entry in bad(entries)] == [f"{path}:2"]
    assert reason in bad(entries)[0].reason.replace("expected a number", "not a number")


def test_xyz_that_ends_early(tmp_path: Path) -> None:
    (entry,) = read(write(tmp_path, "a.xyz", "3\n\nO 0 0 0\n"))
    assert isinstance(entry, Rejected) and entry.reason == "it ends after 1 of 3 atoms"


def test_extxyz_decides_by_lattice_and_pbc(tmp_path: Path) -> None:
    lattice = 'Lattice="4 0 0 1 4 0 0 0 4"'
    frames = [
        f"1\n{lattice} Properties=species:S:1:pos:R:3\nC 1 0 0\n",
        f'1\n{lattice} pbc="F F F" Properties=species:S:1:pos:R:3\nC 1 0 0\n',
        f"1\n{lattice} Properties=id:I:1:pos:R:3:Z:I:1 spacegroup=221\n7 1 0 0 6\n",
        '1\nProperties=species:S:1:pos:R:3 energy=-1.5 pbc="F F F"\nC 1 0 0\n',
    ]
    entries = good(read(write(tmp_path, "a.extxyz", "".join(frames))))
    assert [entry.kind for entry in entries] == ["crystal", "molecule", "crystal", "molecule"]
    assert entries[0].cell is not None and entries[0].cell.tolist() == [[4, 0, 0], [1, 4, 0], [0, 0, 4]]
    assert entries[2].numbers.tolist() == [6] and entries[2].spacegroup == 221
    assert entries[3].properties == {"energy": -1.5}
    assert [entry.kind for entry in good(read(tmp_path / "a.extxyz", kind="crystal"))] == ["crystal"] * 2


# --- QM9 ------------------------------------------------------------------------------------------------


def test_qm9_xyz_folder(tmp_path: Path) -> None:
    write(tmp_path, "dsgdb9nsd_000001.xyz", QM9_METHANE)
    write(tmp_path, "dsgdb9nsd_000002.xyz", QM9_AMMONIA)
    methane, ammonia = good(read(tmp_path))
    assert (methane.id, methane.formula, ammonia.id, ammonia.formula) == ("gdb_1", "CH4", "gdb_2", "H3N")
    assert ammonia.positions[2, 2] == -2.8755607e-2
    assert methane.properties["U0"] == -40.47893
    assert methane.properties["alpha"] == 13.21
    assert methane.properties["smiles"] == "C"


def test_qm9_uncharacterized_is_rejected_in_xyz(tmp_path: Path) -> None:
    write(tmp_path, "uncharacterized.txt", UNCHARACTERIZED)
    (tmp_path / "xyz").mkdir()
    write(tmp_path, "xyz/dsgdb9nsd_000001.xyz", QM9_METHANE)
    write(tmp_path, "xyz/dsgdb9nsd_000002.xyz", QM9_AMMONIA)
    entries = read(tmp_path / "xyz")
    assert [entry.id for entry in good(entries)] == ["gdb_1"]
    assert "uncharacterized" in bad(entries)[0].reason


def test_qm9_tar(tmp_path: Path) -> None:
    import tarfile

    path = tmp_path / "dsgdb9nsd.xyz.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        for number, text in enumerate((QM9_METHANE, QM9_AMMONIA), 1):
            archive.add(write(tmp_path, "x.xyz", text), f"dsgdb9nsd_{number:06d}.xyz")
    (tmp_path / "x.xyz").unlink()
    assert [entry.id for entry in good(read(path))] == ["gdb_1", "gdb_2"]
    write(tmp_path, "uncharacterized.txt", UNCHARACTERIZED)
    assert [entry.id for entry in good(read(path))] == ["gdb_1"]


def test_qm9_sdf_with_its_table(tmp_path: Path) -> None:
    records = [METHANE.replace("methane", f"gdb_{number}") for number in (1, 2, 3)]
    records[2] = "$$$$\n"
    path = write(tmp_path, "gdb9.sdf", "".join(records) + METHANE.replace("methane", "gdb_4"))
    write(
        tmp_path,
        "gdb9.sdf.csv",
        "mol_id,A,gap\ngdb_1,157.7,0.5048\ngdb_2,293.6,0.3399\ngdb_3,1,2\ngdb_4,1,0.7\n",
    )
    write(tmp_path, "uncharacterized.txt", UNCHARACTERIZED)
    entries = read(path)
    assert [(entry.id, entry.properties["gap"]) for entry in good(entries)] == [
        ("gdb_1", 0.5048),
        ("gdb_4", 0.7),
    ]
    assert [entry.source for entry in bad(entries)] == [f"{path}:2", f"{path}:3"]


def test_uncharacterized_numbers(tmp_path: Path) -> None:
    write(tmp_path, "uncharacterized.txt", UNCHARACTERIZED)
    assert uncharacterized(tmp_path) == {2, 1234}
    assert uncharacterized(tmp_path / "nowhere") == set()


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


def test_npz(tmp_path: Path) -> None:
    path = save_npz(tmp_path / "a.npz")
    water, carbon_monoxide = good(read(path))
    assert (water.id, water.formula, water.properties) == ("a-1", "H2O", {"group": 3})
    assert (carbon_monoxide.formula, carbon_monoxide.source) == ("CO", f"{path}:2")
    np.testing.assert_array_equal(carbon_monoxide.positions, [[9, 10, 11], [12, 13, 14]])


def test_npz_bad_row(tmp_path: Path) -> None:
    entries = read(save_npz(tmp_path / "a.npz", offsets=np.array([0, 3, 99, 99]), group=np.zeros(3)))
    assert len(good(entries)) == 1
    assert "out of order" in bad(entries)[0].reason


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"positions": np.zeros((4, 3))}, "shapes do not fit"),
        ({"offsets": np.array([[0, 3, 5]])}, "shapes do not fit"),
        ({"positions": np.array([object()] * 5)}, "Python objects"),
    ],
)
def test_npz_that_is_wrong_as_a_whole(tmp_path: Path, changes: dict[str, np.ndarray], problem: str) -> None:
    path = save_npz(tmp_path / "a.npz", **changes)
    with pytest.raises(InputError, match=problem):
        read(path)


def test_npz_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    """A header that states a terabyte, over a few bytes of data."""
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**37, 3)}
    )
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("positions.npy", header.getvalue())
    with pytest.raises(InputError, match="GiB"):
        read(path)


def test_npz_without_an_array_or_no_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", positions=np.zeros((1, 3)))
    with pytest.raises(InputError, match="atomic_numbers"):
        read(tmp_path / "a.npz")
    with pytest.raises(InputError, match="no readable npz"):
        read(write(tmp_path, "b.npz", "PK nothing"))
