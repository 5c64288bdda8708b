"""Structures in, figures out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from polydit.core.figure import Figure
from polydit.core.jobs.workers import Workers
from polydit.molgen.data.structure import Rejected, Structure
from polydit.molgen.evaluate import crystals, molecules
from polydit.molgen.evaluate.crystals import AssessedCrystal, OxidationStates
from polydit.molgen.evaluate.evaluation import Evaluation, MoleculeRow
from polydit.molgen.evaluate.posebusters import require_posebusters
from polydit.molgen.evaluate.training import collect_training_set

MAX_ATOMS: Final = 2000
"""Larger structures are rejected: all pairs of atoms are held at once."""

Assessed = MoleculeRow | AssessedCrystal | Rejected


def evaluate_structures(
    structures: Iterable[Structure | Rejected],
    *,
    training: Iterable[Structure | Rejected | str] | None = None,
    oxidation_states: OxidationStates = "smact14",
    posebusters: bool = False,
    internal_energy: bool = False,
    workers: int = 1,
    on_structure: Callable[[], object] | None = None,
) -> Evaluation:
    """Measures molecules and crystals by the field's figures.

    Args:
        structures: What a reader yields; molecules and crystals may be mixed.
        training: What novelty is measured against: structures, or SMILES as text. None leaves novelty out.
        oxidation_states: SMACT's set.
        posebusters: Also run PoseBusters on the molecules that RDKit finds valid.
        internal_energy: With `posebusters`, its slow check of the energy too.
        workers: Processes side by side; for more than one a script needs `if __name__ == "__main__":`.
        on_structure: Called after each structure, for a progress bar.

    Raises:
        MissingExtraError: `posebusters` is asked for and not installed.
    """
    if posebusters:
        require_posebusters()
    assess = partial(
        _assess, oxidation_states=oxidation_states, posebusters=posebusters, internal_energy=internal_energy
    )
    found_molecules: list[MoleculeRow] = []
    found_crystals: list[AssessedCrystal] = []
    rejected: list[Rejected] = []
    with Workers(workers) as processes:
        for result in processes.map(assess, structures):
            if isinstance(result, Rejected):
                rejected.append(result)
            elif isinstance(result, MoleculeRow):
                found_molecules.append(result)
            else:
                found_crystals.append(result)
            if on_structure:
                on_structure()
        known = None if training is None else collect_training_set(training, processes)
        molecule_rows = molecules.compare(found_molecules, known and known.smiles)
        crystal_rows = crystals.compare(found_crystals, known and known.crystals, processes)
    read = len(molecule_rows) + len(crystal_rows)
    figures = [_read_figure("read", read, len(rejected))]
    if known is not None:
        figures.append(_read_figure("training_read", known.read, known.rejected))
    if molecule_rows:
        figures += molecules.molecule_figures(molecule_rows, novelty=known is not None)
    if crystal_rows:
        figures += crystals.crystal_figures(
            crystal_rows, novelty=known is not None, oxidation_states=oxidation_states
        )
    return Evaluation(
        figures=tuple(figures), molecules=molecule_rows, crystals=crystal_rows, rejected=tuple(rejected)
    )


def _assess(
    structure: Structure | Rejected,
    *,
    oxidation_states: OxidationStates,
    posebusters: bool,
    internal_energy: bool,
) -> Assessed:
    """One structure; whatever a library of chemistry raises on it rejects it and no other."""
    if isinstance(structure, Rejected):
        return structure
    where = structure.source or structure.id
    if structure.num_atoms > MAX_ATOMS:
        return Rejected(where, f"it has {structure.num_atoms} atoms; at most {MAX_ATOMS} can be assessed")
    try:
        if structure.kind == "molecule":
            return molecules.assess_molecule(
                structure, posebusters=posebusters, internal_energy=internal_energy
            )
        return crystals.assess_crystal(structure, oxidation_states=oxidation_states)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return Rejected(where, f"it could not be assessed: {type(error).__name__}: {error}")


def _read_figure(name: str, read: int, rejected: int) -> Figure:
    return Figure(name=name, numerator=read, denominator=read + rejected, method="rows that are a structure")
