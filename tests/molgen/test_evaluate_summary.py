"""The figures of an evaluation, and the files that hold them."""

from __future__ import annotations

import csv
import io
import json

import pytest

from polydit.core.figure import Figure
from polydit.molgen.data.structure import Rejected
from polydit.molgen.evaluate.evaluation import CrystalRow, Evaluation, MoleculeRow

MOLECULE = MoleculeRow(
    id="a", source="f:1", formula="H2O", num_atoms=3, stable_atoms=3, stable=True, valid=True,
    smiles="[H]O[H]", rdkit_valid=True, rdkit_smiles="O", rdkit_reason="", connected=True,
)  # fmt: skip
CRYSTAL = CrystalRow(
    id="b", source="f:2", formula="He", num_atoms=1, volume=20.5, min_distance=None, absurd_angles=False,
    structure_valid=True, smact_valid=True, valid=True, spacegroup=225, spacegroup_symbol="Fm-3m",
    novel=False,
)  # fmt: skip


def figure(numerator: int, denominator: int) -> Figure:
    return Figure(name="valid", numerator=numerator, denominator=denominator, method="by eye")


def test_files_hold_every_figure_and_one_row_per_structure() -> None:
    checked = MoleculeRow(
        **{name: getattr(MOLECULE, name) for name in MOLECULE.__slots__ if name not in ("id", "posebusters")},
        id="c",
        posebusters={"bond_lengths": True, "bond_angles": False},
    )
    evaluation = Evaluation(
        figures=(figure(1, 2), Figure(name="novel", numerator=0, denominator=0, method="none")),
        molecules=(MOLECULE, checked),
        crystals=(CRYSTAL,),
        rejected=(Rejected("f:3", "it is empty"),),
    )
    files = evaluation.files()
    assert list(files) == ["summary.json", "molecules.csv", "crystals.csv", "rejected.csv"]
    assert json.loads(files["summary.json"]) == {
        "valid": {
            "value": 0.5,
            "numerator": 1,
            "denominator": 2,
            "interval": pytest.approx([0.0945, 0.9055], abs=5e-5),
            "method": "by eye",
        },
        "novel": {"value": None, "numerator": 0, "denominator": 0, "interval": None, "method": "none"},
    }

    def rows(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(files[name].decode())))

    first, second = rows("molecules.csv")
    assert (first["smiles"], first["stable"], first["duplicate_of"]) == ("[H]O[H]", "1", "")
    assert (first["posebusters_bond_angles"], second["posebusters_bond_angles"]) == ("", "0")
    assert "posebusters" not in first
    [crystal] = rows("crystals.csv")
    assert (crystal["min_distance"], crystal["novel"], crystal["spacegroup"]) == ("", "0", "225")
    assert rows("rejected.csv") == [{"source": "f:3", "reason": "it is empty"}]


def test_kinds_that_are_absent_leave_no_file() -> None:
    only_molecules = Evaluation(figures=(), molecules=(MOLECULE,), crystals=(), rejected=())
    assert list(only_molecules.files()) == ["summary.json", "molecules.csv"]


def test_a_figure_is_found_by_its_name() -> None:
    evaluation = Evaluation(figures=(figure(1, 2),), molecules=(), crystals=(), rejected=())
    assert evaluation["valid"].denominator == 2
    with pytest.raises(KeyError, match="novel"):
        evaluation["novel"]
