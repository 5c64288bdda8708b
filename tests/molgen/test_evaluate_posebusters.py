"""PoseBusters, where it is installed, and the message where it is not."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from polydit.core.errors import MissingExtraError
from polydit.molgen.data.interop import from_rdkit
from polydit.molgen.data.structure import Structure
from polydit.molgen.evaluate import evaluate_structures
from polydit.molgen.evaluate.posebusters import _buster


def embedded(smiles: str) -> Structure:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=1) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    return from_rdkit(mol, id=smiles)


def test_without_the_package_the_message_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "posebusters", None)
    _buster.cache_clear()
    with pytest.raises(MissingExtraError, match=r'pip install "polydit-molgen\[posebusters\]"'):
        evaluate_structures([embedded("CCO")], posebusters=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the package itself
def test_checks_are_figures_of_the_rdkit_valid() -> None:
    pytest.importorskip("posebusters")
    _buster.cache_clear()
    good = embedded("CCO")
    broken = Structure(id="broken", numbers=good.numbers, positions=good.positions * 0.5)
    bent = embedded("CC(C)=C(C)C")
    twisted = bent.positions.copy()
    angle = np.radians(40)
    half = twisted[:, 0] > twisted[:, 0].mean()
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    twisted[half] = (twisted[half] - twisted.mean(0)) @ turn.T + twisted.mean(0)
    evaluation = evaluate_structures(
        [good, broken, Structure(id="twisted", numbers=bent.numbers, positions=twisted)], posebusters=True
    )
    assert evaluation["rdkit_valid"].numerator == 2
    assert evaluation["posebusters_bond_lengths"].denominator == 2
    assert evaluation["posebusters_all_checks"].numerator == 1
    assert all(evaluation.molecules[0].posebusters.values())
    assert not evaluation.molecules[1].posebusters
    assert not evaluation.molecules[2].posebusters["double_bond_flatness"]
    assert not any("energy" in figure.name for figure in evaluation.figures)
