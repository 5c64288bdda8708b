"""Readers of crystals and of archives and folders; a bad row is named and the others go on."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.molgen.data.readers import read_structures
from polydit.molgen.data.structure import Rejected, Structure

# A row of Perov-5 as cdvae hands it out (the CIF is P1 by pymatgen), and one of Carbon-24's layout.
CIF_HEAD = """# generated using pymatgen
data_{name}
_symmetry_space_group_name_H-M   'P 1'
_cell_length_a   {a}
_cell_length_b   {a}
_cell_length_c   {a}
_cell_angle_alpha   90.00000000
_cell_angle_beta   90.00000000
_cell_angle_gamma   90.00000000
_symmetry_Int_Tables_number   1
_chemical_formula_structural   {name}
_chemical_formula_sum   '{formula}'
_cell_volume   78.36342504
_cell_formula_units_Z   1
loop_
 _symmetry_equiv_pos_site_id
 _symmetry_equiv_pos_as_xyz
  1  'x, y, z'
loop_
 _atom_site_type_symbol
 _atom_site_label
 _atom_site_symmetry_multiplicity
 _atom_site_fract_x
 _atom_site_fract_y
 _atom_site_fract_z
 _atom_site_occupancy
"""
PEROVSKITE = (
    CIF_HEAD.format(name="CdCuN3", a="4.27928426", formula="Cd1 Cu1 N3")
    + """  Cu  Cu0  1  0.00159044  0.00000000  -0.00000000  1
  Cd  Cd1  1  0.50071723  0.50000000  0.50000000  1
  N  N2  1  0.49959202  -0.00000000  0.50000000  1
  N  N3  1  0.49959202  0.50000000  -0.00000000  1
  N  N4  1  0.00071136  0.50000000  0.50000000  1
"""
)
DIAMOND = (
    CIF_HEAD.format(name="C", a="3.567", formula="C2")
    + "  C  C0  1  0.0  0.0  0.0  1\n  C  C1  1  1.25  0.25  0.25  1\n"
)
ROCK_SALT = """data_NaCl
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'F m -3 m'
_space_group_IT_number 225
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 Na 0 0 0
Cl1 Cl 0.5 0.5 0.5
"""
POSCAR = """boron nitride
3.615
0.0 0.5 0.5
0.5 0.0 0.5
0.5 0.5 0.0
B N
1 1
direct
0.00 0.00 0.00 B
0.25 0.25 0.25 N
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


def quoted(cif: str) -> str:
    return '"' + cif.replace('"', '""') + '"'


# --- CIF and POSCAR -------------------------------------------------------------------------------------


def test_cif_of_pymatgen(tmp_path: Path) -> None:
    (crystal,) = good(read(write(tmp_path, "x.cif", PEROVSKITE)))
    assert (crystal.id, crystal.formula, crystal.spacegroup) == ("x", "CdCuN3", 0)
    assert crystal.num_atoms == 5
    np.testing.assert_allclose(crystal.lengths, 4.27928426)
    np.testing.assert_allclose(crystal.frac_coords.min(), 0.0, atol=1e-9)


def test_cif_symmetry_is_applied_and_the_space_group_read(tmp_path: Path) -> None:
    (crystal,) = good(read(write(tmp_path, "NaCl.cif", ROCK_SALT)))
    assert (crystal.formula, crystal.spacegroup) == ("Cl4Na4", 225)


def test_cif_of_several_blocks(tmp_path: Path) -> None:
    broken = ROCK_SALT.replace("_cell_length_a 5.64\n", "_cell_length_a ?\n")
    path = write(tmp_path, "a.cif", PEROVSKITE + broken + DIAMOND)
    entries = read(path)
    assert [entry.id for entry in good(entries)] == ["a-1", "a-3"]
    assert [entry.source for entry in bad(entries)] == [f"{path}:2"]
    assert "pymatgen cannot read" in bad(entries)[0].reason


def test_coordinates_outside_the_cell_are_wrapped(tmp_path: Path) -> None:
    (crystal,) = good(read(write(tmp_path, "a.cif", DIAMOND)))
    np.testing.assert_allclose(crystal.positions[1], 3.567 / 4, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello\n", "no CIF of a crystal"),
        (PEROVSKITE.partition("loop_")[0], "no CIF of a crystal"),
        (PEROVSKITE.replace("0.50071723  0.50000000  0.50000000  1", "0.5 0.5 0.5 0.5"), "partly occupied"),
        (PEROVSKITE.replace("4.27928426", "0.0"), "volume|pymatgen cannot read"),
    ],
)
def test_cif_that_is_no_ordered_crystal(tmp_path: Path, text: str, reason: str) -> None:
    import re

    path = write(tmp_path, "a.cif", text)
    (entry,) = read(path)
    assert isinstance(entry, Rejected) and entry.source == f"{path}:1"
    assert re.search(reason, entry.reason), entry.reason


def test_poscar(tmp_path: Path) -> None:
    for name in ("POSCAR", "CONTCAR_relaxed", "bn.vasp"):
        (crystal,) = good(read(write(tmp_path, name, POSCAR)))
        assert (crystal.formula, crystal.kind) == ("BN", "crystal")
        np.testing.assert_allclose(np.linalg.norm(crystal.positions[1]), 3.615 * np.sqrt(3) / 4)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (POSCAR.replace("B N\n", ""), "names no elements"),
        (POSCAR.replace("\n1 1\n", "\n1 1000000000\n"), "numbers of atoms"),
        (POSCAR.replace("0.0 0.5 0.5", "0.0 x 0.5"), "pymatgen cannot read"),
        ("one line\n", "names no elements"),
    ],
)
def test_poscar_that_is_wrong(tmp_path: Path, text: str, reason: str) -> None:
    (entry,) = read(write(tmp_path, "POSCAR", text))
    assert isinstance(entry, Rejected) and reason in entry.reason


# --- CSV ------------------------------------------------------------------------------------------------


def test_perov_5_row(tmp_path: Path) -> None:
    header = ",material_id,cif,formula,heat_all,heat_ref,dir_gap,ind_gap\n"
    row = f"5168,18517,{quoted(PEROVSKITE)},CuCdN3,2.76,2.709152583232041,0.0,0.0\n"
    path = write(tmp_path, "perov_5.csv", header + row)
    (crystal,) = good(read(path))
    assert (crystal.id, crystal.num_atoms, crystal.source) == ("18517", 5, f"{path}:1")
    assert crystal.properties == {
        **{"formula": "CuCdN3", "heat_all": 2.76, "heat_ref": 2.709152583232041},
        **{"dir_gap": 0.0, "ind_gap": 0.0},
    }


def test_carbon_24_row(tmp_path: Path) -> None:
    text = f",material_id,cif,energy_per_atom\n2649,C-148264-7891-51,{quoted(DIAMOND)},-154.223695\n"
    (crystal,) = good(read(write(tmp_path, "carbon_24.csv", text)))
    assert (crystal.id, crystal.formula) == ("C-148264-7891-51", "C2")
    assert crystal.properties == {"energy_per_atom": -154.223695}


def test_mp_20_row_states_its_space_group(tmp_path: Path) -> None:
    header = "material_id,formation_energy_per_atom,pretty_formula,cif,spacegroup.number\n"
    (crystal,) = good(read(write(tmp_path, "a.csv", f"{header}mp-1,-0.5,CdCuN3,{quoted(PEROVSKITE)},99\n")))
    assert (crystal.id, crystal.spacegroup) == ("mp-1", 99)


@pytest.mark.parametrize(("stated", "number"), [("225.0", 225), ("nan", 0), ("P1", 0), ("", 0), ("225", 225)])
def test_space_group_column(tmp_path: Path, stated: str, number: int) -> None:
    path = write(tmp_path, "a.csv", f"material_id,cif,spacegroup\nx,{quoted(DIAMOND)},{stated}\n")
    assert [crystal.spacegroup for crystal in good(read(path))] == [number]


def test_csv_bad_rows_are_named_and_the_others_go_on(tmp_path: Path) -> None:
    rows = [f"a,{quoted(PEROVSKITE)}", "b,", "c,nonsense", "d", f"e,{quoted(DIAMOND)}"]
    path = write(tmp_path, "a.csv", "material_id,cif\n" + "\n".join(rows) + "\n")
    entries = read(path)
    assert [entry.id for entry in good(entries)] == ["a", "e"]
    assert [entry.source for entry in bad(entries)] == [f"{path}:{row}" for row in (2, 3, 4)]
    assert "column cif is empty" in bad(entries)[0].reason


def test_csv_with_an_unclosed_quote(tmp_path: Path) -> None:
    text = f'material_id,cif\na,{quoted(DIAMOND)}\nb,"' + "x\n" * 600_000
    entries = read(write(tmp_path, "a.csv", text))
    assert [entry.id for entry in good(entries)] == ["a"]
    assert "rest of the table" in bad(entries)[-1].reason


def test_csv_without_structures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no structures"):
        read(write(tmp_path, "a.csv", "x,y\n1,2\n"))


# --- files, archives, folders ---------------------------------------------------------------------------


def test_zip_of_cifs(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("gen_1.cif", DIAMOND)
        archive.writestr("gen_0.cif", PEROVSKITE)
        archive.writestr("gen_2.cif", "broken")
        archive.writestr("notes.md", "nothing")
    entries = read(path)
    assert [entry.id for entry in good(entries)] == ["gen_0", "gen_1"]
    assert [entry.source for entry in bad(entries)] == [f"{path}:gen_2.cif:1"]


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polydit.molgen.data.readers.text.FREE_EXPANSION_BYTES", 2**18)
    bomb = b"1\n\n" + (b"O 0 0 0 " + b" " * 5000 + b"\n") * 1000
    packed = tmp_path / "a.xyz.gz"
    packed.write_bytes(gzip.compress(bomb))
    assert len(bomb) > 200 * packed.stat().st_size
    with pytest.raises(InputError, match="unpacks to more than"):
        read(packed)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.xyz", bomb)
        archive.writestr("b.cif", DIAMOND)
    entries = read(tmp_path / "a.zip")
    assert "unpacks to more than" in bad(entries)[-1].reason
    assert good(entries)[-1].id == "b"


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a line is longer"):
        read(write(tmp_path, "a.xyz", "x" * (3 * 2**20)))


def test_folder_in_order_of_names_and_a_bad_file_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, "sub/b.cif", DIAMOND)
    write(tmp_path, "a.cif", PEROVSKITE)
    write(tmp_path, "empty.cif", "")
    (tmp_path / "damaged.cif.gz").write_bytes(b"no gzip")
    write(tmp_path, "run.json", "{}")
    entries = read(tmp_path)
    assert [entry.id for entry in good(entries)] == ["a", "b"]
    assert {Path(entry.source).name for entry in bad(entries)} == {"empty.cif", "damaged.cif.gz"}


def test_same_sample_in_several_formats_is_read_once(tmp_path: Path) -> None:
    from polydit.molgen.data.writers import render

    (crystal,) = good(read(write(tmp_path, "s1.cif", PEROVSKITE)))
    for suffix in ("cif", "extxyz", "xyz"):
        write(tmp_path, f"s1.{suffix}", render(crystal, suffix))
    entries = read(tmp_path)
    assert len(entries) == 1 and entries[0].source.endswith("s1.extxyz:1")


def test_format_is_found_by_content(tmp_path: Path) -> None:
    assert good(read(write(tmp_path, "crystal", PEROVSKITE)))[0].formula == "CdCuN3"
    assert good(read(write(tmp_path, "molecule.txt", "1\n\nC 0 0 0\n")))[0].formula == "C"


@pytest.mark.parametrize("name", ["a.sdf", "a.cif", "a.csv", "a.xyz", "a.smi", "POSCAR"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="the file is empty"):
        read(write(tmp_path, name, ""))


@pytest.mark.parametrize(
    "name", ["a.sdf", "a.cif", "a.xyz", "a.smi", "POSCAR", "a.npz", "a.zip", "a.csv", "a.tar"]
)
def test_random_bytes_never_raise_anything_but_an_input_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000) + b"\n$$$$\n")
    try:
        assert not good(read(tmp_path / name))
    except InputError as error:
        assert str(tmp_path / name) in str(error)


def test_unknown_format_missing_path_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="format is unknown"):
        read(write(tmp_path, "a.doc", "words\n"))
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "nowhere")
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match="no structure files"):
        read(tmp_path / "sub")
