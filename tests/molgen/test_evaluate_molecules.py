"""EDM's figures and RDKit's verdict on molecules whose answers are known."""

from __future__ import annotations

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem

from polydit.molgen.data.interop import from_rdkit
from polydit.molgen.data.structure import Rejected, Structure
from polydit.molgen.evaluate import Evaluation, evaluate_structures
from polydit.molgen.evaluate.evaluator import MAX_ATOMS
from polydit.molgen.evaluate.molecules import assess_molecule, comparable_smiles


def embedded(smiles: str, name: str | None = None, seed: int = 1) -> Structure:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=seed) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    return from_rdkit(mol, id=name or smiles)


def without_atom(structure: Structure, index: int) -> Structure:
    return Structure(
        id=f"{structure.id} without {index}",
        numbers=np.delete(structure.numbers, index),
        positions=np.delete(structure.positions, index, axis=0),
    )


def beside(first: Structure, second: Structure) -> Structure:
    return Structure(
        id=f"{first.id}.{second.id}",
        numbers=np.concatenate([first.numbers, second.numbers]),
        positions=np.concatenate([first.positions, second.positions + 10.0]),
    )


def counts(evaluation: Evaluation) -> dict[str, tuple[int, int]]:
    return {figure.name: (figure.numerator, figure.denominator) for figure in evaluation.figures}


def test_methane_passes_everything() -> None:
    row = assess_molecule(embedded("C"))
    assert (row.stable_atoms, row.stable, row.valid, row.rdkit_valid, row.connected) == (
        5,
        True,
        True,
        True,
        True,
    )
    assert (row.smiles, row.rdkit_smiles) == ("[H]C([H])([H])[H]", "C")
    assert row.formula == "CH4"


def test_methyl_is_valid_for_edm_but_not_for_rdkit() -> None:
    """RDKit fills EDM's molecule up with an implicit hydrogen; its own takes the atoms as they are."""
    row = assess_molecule(without_atom(embedded("C"), 1))
    assert (row.stable_atoms, row.stable, row.valid) == (3, False, True)
    assert row.smiles == "[H]C([H])[H]"
    assert not row.rdkit_valid
    assert row.rdkit_reason


def test_a_squeezed_methane_is_invalid() -> None:
    methane = embedded("C")
    row = assess_molecule(
        Structure(id="squeezed", numbers=methane.numbers, positions=methane.positions * 0.3)
    )
    assert not row.stable
    assert not row.valid  # every hydrogen has four bonds
    assert row.smiles == ""
    assert not row.rdkit_valid


def test_two_fragments_are_valid_but_not_connected() -> None:
    row = assess_molecule(beside(embedded("C"), embedded("CC")))
    assert row.valid
    assert row.smiles == "[H]C([H])([H])C([H])([H])[H]"  # the larger one
    assert row.rdkit_valid
    assert not row.connected


def test_ions_far_apart_are_not_valid_because_their_charges_cancel() -> None:
    methane = embedded("C")
    row = assess_molecule(Structure(id="burst", numbers=methane.numbers, positions=methane.positions * 4))
    assert not row.rdkit_valid
    assert row.rdkit_reason == "a fragment is charged"


def test_a_radical_is_not_rdkit_valid() -> None:
    oxygen = Structure(id="triplet", numbers=np.array([1]), positions=np.zeros((1, 3)))
    row = assess_molecule(oxygen)
    assert not row.rdkit_valid
    assert row.connected


def test_figures_of_a_small_set_are_exact() -> None:
    water, again = embedded("O", "first"), embedded("O", "second", seed=7)
    broken = without_atom(embedded("C"), 1)
    apart = beside(embedded("N"), embedded("O"))
    evaluation = evaluate_structures([water, again, broken, apart])
    assert counts(evaluation) == {
        "read": (4, 4),
        "edm_atom_stable": (3 + 3 + 3 + 7, 3 + 3 + 4 + 7),
        "edm_molecule_stable": (3, 4),
        "edm_valid": (4, 4),
        "edm_unique_of_valid": (3, 4),
        "edm_valid_and_unique": (3, 4),
        "rdkit_valid": (3, 4),
        "connected": (3, 4),
        "rdkit_valid_and_connected": (2, 4),
    }
    assert [row.duplicate_of for row in evaluation.molecules] == [None, "first", None, None]


def test_novelty_is_counted_among_the_distinct_valid_ones() -> None:
    made = [embedded("CCO", "a"), embedded("CCO", "b"), embedded("CC", "c"), embedded("CN", "d")]
    known = [embedded("CCO", seed=5), Rejected("train:2", "it is empty"), embedded("C")]
    evaluation = evaluate_structures(made, training=known)
    assert counts(evaluation)["edm_novel_of_unique"] == (2, 3)
    assert counts(evaluation)["training_read"] == (2, 3)
    assert [row.novel for row in evaluation.molecules] == [False, False, True, True]


def test_a_training_set_of_smiles_is_the_same_as_one_of_structures() -> None:
    made = [embedded(smiles) for smiles in ("C[C@H](N)C(=O)O", "CC(C)=O", "CC#N", "CCO")]
    evaluation = evaluate_structures(made, training=["CC(N)C(=O)O", "O=C(C)C", "OCC", "no SMILES"])
    assert [row.novel for row in evaluation.molecules] == [False, False, True, False]
    assert counts(evaluation)["training_read"] == (3, 4)


def test_comparable_smiles_writes_hydrogens_and_drops_stereo() -> None:
    assert comparable_smiles("C") == "[H]C([H])([H])[H]"
    assert comparable_smiles("F/C=C/F") == comparable_smiles(r"F/C=C\F")
    assert comparable_smiles("C(") is None


def test_without_valid_molecules_the_dependent_figures_have_no_value() -> None:
    methane = embedded("C")
    squeezed = Structure(id="squeezed", numbers=methane.numbers, positions=methane.positions * 0.3)
    evaluation = evaluate_structures([squeezed], training=[methane])
    assert evaluation["edm_unique_of_valid"].value is None
    assert evaluation["edm_novel_of_unique"].value is None
    assert evaluation["edm_valid"].value == 0


def test_what_cannot_be_assessed_is_named_and_harms_no_other() -> None:
    number = MAX_ATOMS + 1
    huge = Structure(
        id="huge", numbers=np.full(number, 2), positions=np.arange(3.0 * number).reshape(-1, 3), source="f:1"
    )
    evaluation = evaluate_structures([huge, Rejected("f:2", "it is empty"), embedded("O")])
    assert [entry.source for entry in evaluation.rejected] == ["f:1", "f:2"]
    assert str(number) in evaluation.rejected[0].reason
    assert counts(evaluation)["read"] == (1, 3)
    assert counts(evaluation)["edm_valid"] == (1, 1)


def test_two_processes_find_what_one_finds() -> None:
    made = [embedded(smiles) for smiles in ("O", "CCO", "C", "CC", "O", "N")]
    alone = evaluate_structures(made, training=["CC"])
    together = evaluate_structures(made, training=["CC"], workers=2)
    assert together.figures == alone.figures
    assert together.molecules == alone.molecules


def test_progress_hears_of_every_structure() -> None:
    heard: list[None] = []
    entries = [embedded("O"), Rejected("f:2", "it is empty"), embedded("C")]
    evaluate_structures(entries, on_structure=lambda: heard.append(None))
    assert len(heard) == 3
