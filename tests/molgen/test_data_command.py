"""`molgen data make` and `molgen data inspect` as a user calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from polydit.core.jobs.lock import FolderLock
from polydit.molgen.cli import molgen
from polydit.molgen.data.inspect import histogram
from polydit.molgen.data.readers import read_structures
from polydit.molgen.data.structure import Structure

Invoke = Callable[..., Result]
Shell = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--kind", "molecule", "--max-heavy-atoms", 2)


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.fixture(autouse=True)
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing ends sooner, and there are few crystals."""
    monkeypatch.setattr("polydit.molgen.data.generate_molecules.BLOCK_DRAWS", 50)
    few = {"rock salt": {"NaCl": (5.64,)}, "rutile": {"TiO2": (4.594, 2.959, 0.305)}}
    monkeypatch.setattr("polydit.molgen.data.generate_crystals.LITERATURE", few)


@pytest.fixture
def made(invoke: Invoke, tmp_path: Path) -> Path:
    result = invoke(molgen, "data", "make", *SMALL, "--out", "data")
    assert result.exit_code == 0, result.output
    return tmp_path / "data"


def test_make_writes_what_it_says(made: Path) -> None:
    summary = json.loads((made / "data.json").read_text())
    structures = list(read_structures(made))
    assert contents(made) == ["data.json", "molecules.sdf"]
    assert (
        len(structures)
        == summary["molecules"]["structures"]
        == sum(summary["molecules"]["by_heavy_atoms"].values())
    )
    assert summary["molecules"]["recipe"]["seed"] == 0
    assert "rdkit" in summary["versions"]


def test_make_is_deterministic(made: Path, invoke: Invoke) -> None:
    again = invoke(molgen, "data", "make", *SMALL, "--out", "again")
    assert again.exit_code == 0
    assert (made / "molecules.sdf").read_bytes() == (made.parent / "again" / "molecules.sdf").read_bytes()


def test_make_crystals(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(molgen, "data", "make", "--kind", "crystal", "--out", "c", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    crystals = [entry for entry in read_structures(tmp_path / "c" / "crystals.csv")]
    assert len(crystals) == summary["crystals"]["structures"]
    assert all(isinstance(entry, Structure) and entry.spacegroup > 0 for entry in crystals)
    header = (tmp_path / "c" / "crystals.csv").read_text().partition("\n")[0]
    assert header.strip() == "material_id,cif,formula,spacegroup,prototype,estimated"


def test_make_zero_molecules(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(molgen, "data", "make", "--kind", "molecule", "--num", 0, "--out", "d")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "d" / "molecules.sdf").read_text() == ""


def test_make_does_not_replace_unasked(made: Path, invoke: Invoke) -> None:
    before = (made / "molecules.sdf").read_bytes()
    refused = invoke(molgen, "data", "make", "--kind", "molecule", "--num", 1, "--out", "data")
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr
    assert (made / "molecules.sdf").read_bytes() == before
    replaced = invoke(
        molgen, "data", "make", "--kind", "molecule", "--num", 1, "--out", "data", "--overwrite"
    )
    assert replaced.exit_code == 0
    assert (made / "molecules.sdf").read_text().count("$$$$") == 1


def test_make_that_fails_leaves_no_half_file(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(
        molgen, "data", "make", "--kind", "molecule", "--max-heavy-atoms", 1, "--num", 99, "--out", "d"
    )
    assert result.exit_code == 2 and "distinct molecules" in result.stderr
    assert contents(tmp_path / "d") == []


def test_make_into_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    program = str(Path(sys.executable).with_name("molgen"))
    line = [program, "data", "make", *map(str, SMALL), "--out", "locked/d"]
    if os.geteuid() == 0:  # who may write anywhere, unless that right is taken
        line = ["setpriv", "--bounding-set=-dac_override", *line]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (1, 2) and "locked" in done.stderr and "Traceback" not in done.stderr


def test_make_where_a_file_stands(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke(molgen, "data", "make", *SMALL, "--out", "file")
    assert result.exit_code == 2
    assert "--out file: it cannot be written" in result.stderr


def test_two_calls_into_one_folder(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    lock = FolderLock(tmp_path / "d")
    result = invoke(molgen, "data", "make", *SMALL, "--out", "d")
    lock.release()
    assert result.exit_code == 2 and f"process {os.getpid()}" in result.stderr
    assert contents(tmp_path / "d") == []


def test_make_killed_leaves_nothing_that_stops_the_next_call(
    shell: Shell, invoke: Invoke, tmp_path: Path
) -> None:
    code = (
        "import os, polydit.molgen.data.make as m\n"
        "from pathlib import Path\n"
        "from polydit.molgen.data.recipe import *\n"
        "m.make_data(Path('d'), molecules=MoleculeRecipe(num=5), crystals=None,"
        " watch=lambda s: os.kill(os.getpid(), 9))\n"
    )
    assert shell(f'python -c "{code}"').returncode == -9
    assert [name.partition(".tmp")[0] for name in contents(tmp_path / "d")] == ["data.json", "molecules.sdf"]
    assert not (tmp_path / "d" / "molecules.sdf").exists()
    assert invoke(molgen, "data", "make", *SMALL, "--out", "d").exit_code == 0
    assert contents(tmp_path / "d") == ["data.json", "molecules.sdf"]


def test_inspect_for_a_person(made: Path, invoke: Invoke) -> None:
    with (made / "molecules.sdf").open("a") as handle:
        handle.write("rubbish\n$$$$\n")
    result = invoke(molgen, "data", "inspect", "data")
    assert result.exit_code == 0, result.output
    assert "1 rejected" in result.stdout
    assert "molecules.sdf:" in result.stdout and "mol block" in result.stdout
    assert "#" in result.stdout


def test_inspect_for_a_program(made: Path, invoke: Invoke) -> None:
    result = invoke(molgen, "data", "inspect", "--json", "data/molecules.sdf", "--limit", 5)
    counts = json.loads(result.stdout)
    assert counts["structures"] == 5
    assert counts["kinds"] == {"molecule": 5}
    assert sum(counts["sizes"]["molecule"].values()) == 5
    assert counts["with_bonds"] == 5


def test_inspect_counts_space_groups_and_filters_kinds(made: Path, invoke: Invoke) -> None:
    assert invoke(molgen, "data", "make", "--kind", "crystal", "--out", "data", "--overwrite").exit_code == 0
    both = json.loads(invoke(molgen, "data", "inspect", "--json", "data").stdout)
    only = json.loads(invoke(molgen, "data", "inspect", "--json", "--kind", "crystal", "data").stdout)
    assert set(both["kinds"]) == {"molecule", "crystal"} and set(only["kinds"]) == {"crystal"}
    assert sum(only["spacegroups"].values()) == only["structures"] == both["kinds"]["crystal"]
    text = invoke(molgen, "data", "inspect", "data").stdout
    assert "space group" in text and "225" in text


def test_inspect_what_is_not_there(invoke: Invoke) -> None:
    result = invoke(molgen, "data", "inspect", "nowhere.sdf")
    assert result.exit_code == 2 and "nowhere.sdf" in result.stderr


def test_histogram() -> None:
    assert histogram({"C": 40, "N": 10, "Og": 1}) == [
        f"   C 40 {'#' * 40}",
        f"   N 10 {'#' * 10}",
        "  Og  1 #",
    ]
