"""`molgen evaluate` as a user calls it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from rdkit import Chem
from rdkit.Chem import AllChem

from polydit.molgen.cli import molgen

YARDSTICKS = os.environ.get("POLYDIT_YARDSTICKS")

WATER = "3\nwater\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"
TORN = "3\ntorn\nO 0 0 0\nH 0.96 0 0\nH -0.24 what 0\n"
SALT = """data_salt
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'F m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na Na 0 0 0
Cl Cl 0.5 0.5 0.5
"""

Invoke = Callable[..., Result]


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Water twice, methane, methane that lost a hydrogen."""
    arrays = []
    for smiles, lost in (("O", 0), ("O", 0), ("C", 0), ("C", 1)):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(mol, randomSeed=1)
        keep = slice(0, mol.GetNumAtoms() - lost)
        numbers = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.int8)
        arrays.append((numbers[keep], mol.GetConformer().GetPositions()[keep].astype(np.float32)))
    path = tmp_path / "four.npz"
    np.savez(
        path,
        atomic_numbers=np.concatenate([numbers for numbers, _ in arrays]),
        positions=np.concatenate([positions for _, positions in arrays]),
        offsets=np.cumsum([0, *(len(numbers) for numbers, _ in arrays)]),
    )
    return path


def figures(result: Result) -> dict[str, dict[str, object]]:
    [line] = result.stdout.splitlines()
    return json.loads(line)["figures"]  # type: ignore[no-any-return]


def test_the_table_shows_value_interval_count_and_method(invoke: Invoke, npz: Path) -> None:
    result = invoke(molgen, "evaluate", npz)
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert "93.33 %" in lines["edm_atom_stable"]  # 14 of 15
    assert "14/15" in lines["edm_atom_stable"]
    assert "75.00 %" in lines["edm_molecule_stable"]
    assert "30.06 to 95.44 %" in lines["edm_molecule_stable"]
    assert "100.00 %" in lines["edm_valid"]
    assert "3/4" in lines["edm_unique_of_valid"]
    assert "3/4" in lines["rdkit_valid_and_connected"]
    assert "EDM's bond lengths" in lines["edm_valid"]


def test_json_is_one_line_with_every_figure(invoke: Invoke, npz: Path) -> None:
    result = invoke(molgen, "evaluate", npz, "--json", "--train", npz)
    assert result.exit_code == 0, result.output
    found = figures(result)
    assert found["edm_valid"]["numerator"] == 4
    assert found["edm_novel_of_unique"]["value"] == 0
    assert set(found["edm_valid"]) == {"value", "numerator", "denominator", "interval", "method"}


def test_out_holds_rows_and_figures_and_is_not_replaced_unasked(
    invoke: Invoke, npz: Path, tmp_path: Path
) -> None:
    out = tmp_path / "figures"
    assert invoke(molgen, "evaluate", npz, "--out", out).exit_code == 0
    with (out / "molecules.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["formula"], row["stable"], row["duplicate_of"]) for row in rows] == [
        ("H2O", "1", ""), ("H2O", "1", "four-1"), ("CH4", "1", ""), ("CH3", "0", ""),
    ]  # fmt: skip
    assert json.loads((out / "summary.json").read_text())["edm_valid"]["value"] == 1
    again = invoke(molgen, "evaluate", npz, "--out", out)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    (tmp_path / "salt.cif").write_text(SALT)
    replaced = invoke(molgen, "evaluate", tmp_path / "salt.cif", "--out", out, "--overwrite")
    assert replaced.exit_code == 0, replaced.output
    assert sorted(path.name for path in out.glob("[!.]*")) == ["crystals.csv", "summary.json"]


def test_a_bad_row_is_named_and_the_others_go_on(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "two.xyz").write_text(WATER + TORN + WATER)
    result = invoke(molgen, "evaluate", "two.xyz", "--out", "figures")
    assert result.exit_code == 3
    assert "two.xyz:2" in result.stderr
    assert "2/3" in result.stdout.splitlines()[1]
    with (tmp_path / "figures" / "rejected.csv").open() as handle:
        [row] = csv.DictReader(handle)
    assert row["source"].endswith("two.xyz:2")


def test_folders_and_kinds(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "water.xyz").write_text(WATER)
    (tmp_path / "mixed" / "salt.cif").write_text(SALT)
    both = figures(invoke(molgen, "evaluate", "mixed", "--json"))
    assert both["edm_molecule_stable"]["denominator"] == both["crystal_valid"]["numerator"] == 1
    crystals = figures(invoke(molgen, "evaluate", "mixed", "--kind", "crystal", "--json"))
    assert "edm_valid" not in crystals
    assert crystals["read"]["numerator"] == 1


def test_smiles_as_training_set(invoke: Invoke, npz: Path, tmp_path: Path) -> None:
    (tmp_path / "known.smi").write_text("O water\n\nCC ethane\n")
    found = figures(invoke(molgen, "evaluate", npz, "--train", "known.smi", "--json"))
    assert found["training_read"]["numerator"] == 2
    assert (found["edm_novel_of_unique"]["numerator"], found["edm_novel_of_unique"]["denominator"]) == (2, 3)


def test_limit_counts_from_the_start_and_zero_is_a_value(invoke: Invoke, npz: Path) -> None:
    assert (
        figures(invoke(molgen, "evaluate", npz, "--limit", 2, "--json"))["edm_molecule_stable"]["numerator"]
        == 2
    )
    nothing = invoke(molgen, "evaluate", npz, "--limit", 0, "--json")
    assert nothing.exit_code == 0
    assert figures(nothing)["read"]["value"] is None


def test_a_run_folder_gives_each_item_once(invoke: Invoke, sample: Invoke, tmp_path: Path) -> None:
    made = sample("--num-samples", 3, "--format", "sdf,xyz,extxyz", "--out", tmp_path / "run")
    assert made.exit_code == 0, made.output
    result = invoke(molgen, "evaluate", "run", "--json", "--out", "figures")
    assert result.exit_code == 0, result.output
    assert figures(result)["read"]["denominator"] == 3
    with (tmp_path / "figures" / "molecules.csv").open() as handle:
        ids = [row["id"] for row in csv.DictReader(handle)]
    lines = (tmp_path / "run" / "manifest.jsonl").read_text().splitlines()
    assert ids == sorted(json.loads(line)["id"] for line in lines)


def test_a_failed_or_lost_item_of_a_run_is_named(invoke: Invoke, sample: Invoke, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert sample("--num-samples", 3, "--format", "xyz", "--out", run).exit_code == 0
    manifest = run / "manifest.jsonl"
    records = [json.loads(line) for line in manifest.read_text().splitlines()]
    records[0] |= {"status": "failed", "outputs": [], "error": {"type": "memory", "message": "out of memory"}}
    manifest.write_text("".join(json.dumps(record) + "\n" for record in records))
    (run / records[1]["outputs"][0]["path"]).unlink()
    result = invoke(molgen, "evaluate", "run", "--json")
    assert result.exit_code == 3, result.output
    assert figures(result)["read"]["numerator"] == 1
    assert "out of memory" in result.stderr
    assert records[1]["id"] in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.sdf"], "absent.sdf"),
        (["empty.xyz"], "empty.xyz"),
        (["notes.txt"], "notes.txt"),
        (["water.xyz", "--kind", "crystal"], "no structure"),
        (["water.xyz", "--internal-energy"], "--posebusters"),
        ([], "PATHS"),
    ],
)
def test_wrong_usage_ends_with_2(invoke: Invoke, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "empty.xyz").write_text("")
    (tmp_path / "notes.txt").write_text("these are notes\n")
    (tmp_path / "water.xyz").write_text(WATER)
    result = invoke(molgen, "evaluate", *arguments)
    assert result.exit_code == 2, result.output
    assert words in result.stderr


def test_workers_in_the_installed_command(
    shell: Callable[..., subprocess.CompletedProcess[str]], npz: Path
) -> None:
    done = shell("molgen evaluate four.npz --workers 2 --json -q")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["figures"]["edm_valid"]["numerator"] == 4
    assert done.stderr == ""


@pytest.mark.skipif(
    not YARDSTICKS, reason="POLYDIT_YARDSTICKS does not name the folder of gschnet_samples.npz"
)
def test_the_published_figures_of_gschnet(shell: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The row of G-SchNet in EDM's paper: 95.7 / 68.1 / 85.5 / 80.3, here to the count of EDM's own rules."""
    assert YARDSTICKS
    done = shell(f"molgen evaluate '{Path(YARDSTICKS) / 'gschnet_samples.npz'}' --json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["figures"]
    published = {
        "edm_atom_stable": (178_045, 186_026),
        "edm_molecule_stable": (6805, 10_000),
        "edm_valid": (8545, 10_000),
        "edm_unique_of_valid": (8031, 8545),
        "edm_valid_and_unique": (8031, 10_000),
    }
    counted = {name: (found[name]["numerator"], found[name]["denominator"]) for name in published}
    assert counted == published
