"""QM9 in the forms in which it is handed out, without the molecules that it calls uncharacterized."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polydit.molgen.data.readers.qm9 import uncharacterized

Read, Write = Callable[..., Any], Callable[[str, str], Path]


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


SDF_RECORD = """{id}
  made by hand      3D

  2  1  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    0.0000    0.0000    1.1280 O   0  0
  1  2  3  0
M  CHG  2   1  -1   2   1
M  END
$$$$
"""


def test_qm9_xyz_folder(read: Read, write: Write, tmp_path: Path) -> None:
    write("dsgdb9nsd_000001.xyz", QM9_METHANE)
    write("dsgdb9nsd_000002.xyz", QM9_AMMONIA)
    methane, ammonia = read(tmp_path).good
    assert (methane.id, methane.formula, ammonia.id, ammonia.formula) == ("gdb_1", "CH4", "gdb_2", "H3N")
    assert ammonia.positions[2, 2] == -2.8755607e-2
    assert methane.properties["U0"] == -40.47893
    assert methane.properties["alpha"] == 13.21
    assert methane.properties["smiles"] == "C"


def test_qm9_uncharacterized_is_rejected_in_xyz(read: Read, write: Write, tmp_path: Path) -> None:
    write("uncharacterized.txt", UNCHARACTERIZED)
    (tmp_path / "xyz").mkdir()
    write("xyz/dsgdb9nsd_000001.xyz", QM9_METHANE)
    write("xyz/dsgdb9nsd_000002.xyz", QM9_AMMONIA)
    entries = read(tmp_path / "xyz")
    assert [entry.id for entry in entries.good] == ["gdb_1"]
    assert "uncharacterized" in entries.bad[0].reason


def test_qm9_tar(read: Read, write: Write, tmp_path: Path) -> None:
    path = tmp_path / "dsgdb9nsd.xyz.tar.bz2"
    with tarfile.open(path, "w:bz2") as archive:
        for number, text in enumerate((QM9_METHANE, QM9_AMMONIA), 1):
            archive.add(write("x.xyz", text), f"dsgdb9nsd_{number:06d}.xyz")
    (tmp_path / "x.xyz").unlink()
    assert [entry.id for entry in read(path).good] == ["gdb_1", "gdb_2"]
    write("uncharacterized.txt", UNCHARACTERIZED)
    assert [entry.id for entry in read(path).good] == ["gdb_1"]


def test_qm9_sdf_with_its_table(read: Read, write: Write) -> None:
    records = [SDF_RECORD.format(id=f"gdb_{number}") for number in (1, 2, 3)]
    records[2] = "$$$$\n"
    path = write("gdb9.sdf", "".join(records) + SDF_RECORD.format(id="gdb_4"))
    write(
        "gdb9.sdf.csv",
        "mol_id,A,gap\ngdb_1,157.7,0.5048\ngdb_2,293.6,0.3399\ngdb_3,1,2\ngdb_4,1,0.7\n",
    )
    write("uncharacterized.txt", UNCHARACTERIZED)
    entries = read(path)
    assert [(entry.id, entry.properties["gap"]) for entry in entries.good] == [
        ("gdb_1", 0.5048),
        ("gdb_4", 0.7),
    ]
    assert [entry.source for entry in entries.bad] == [f"{path}:2", f"{path}:3"]


def test_uncharacterized_numbers(write: Write, tmp_path: Path) -> None:
    write("uncharacterized.txt", UNCHARACTERIZED)
    assert uncharacterized(tmp_path) == {2, 1234}
    assert uncharacterized(tmp_path / "nowhere") == set()
