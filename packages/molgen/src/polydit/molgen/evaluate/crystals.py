"""CDVAE's figures of crystals, as ADiT and its peers report them, and space groups.

CDVAE (Xie et al. 2022, appendix on validity): a structure is valid when no two atoms come closer than 0.5 Å
    under
periodic boundaries and the cell has at least 0.1 Å³; a composition when SMACT finds oxidation states that are
neutral and obey Pauling's rule; a crystal when both hold. ADiT calls a cell absurd whose angles leave (50°,
130°); that is reported beside validity, not within it, because primitive cells of real crystals go beyond
these angles.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, wraps
from importlib.metadata import version
from typing import Final, Literal, NamedTuple, TypeVar

import numpy as np
import spglib
from pymatgen.core import Composition
from pymatgen.core import Structure as PymatgenStructure
from pymatgen.core.structure_matcher import StructureMatcher

from polydit.core.figure import Figure
from polydit.core.jobs.workers import Workers
from polydit.molgen.data.interop import to_pymatgen
from polydit.molgen.data.structure import SYMBOLS, Structure
from polydit.molgen.evaluate.evaluation import CrystalRow

OxidationStates = Literal["smact14", "icsd24", "pymatgen_sp"]

MIN_DISTANCE: Final = 0.5  # Å
MIN_VOLUME: Final = 0.1  # Å³
SANE_ANGLES: Final = (50.0, 130.0)  # degrees, exclusive
SYMMETRY_PRECISION: Final = 0.1  # Å
MAX_COMBINATIONS: Final = 10**7
"""Choices of oxidation states tried for one composition; CDVAE calls it invalid when there are more."""

# Where SMACT keeps each of its sets of oxidation states on an Element.
_STATES_ATTRIBUTE: Final = {
    "smact14": "oxidation_states_smact14",
    "icsd24": "oxidation_states_icsd24",
    "pymatgen_sp": "oxidation_states_sp",
}

Formula = tuple[tuple[int, int], ...]
"""Atomic numbers with their counts in the reduced formula."""


Found = TypeVar("Found")


def _without_pymatgen_warnings(function: Callable[..., Found]) -> Callable[..., Found]:
    """pymatgen warns whenever it sorts a formula with a noble gas; generated crystals have many."""

    @wraps(function)
    def quiet(*args: object, **options: object) -> Found:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return function(*args, **options)

    return quiet


class AssessedCrystal(NamedTuple):
    """A row, and what `compare` needs of a valid crystal: its reduced formula and primitive Niggli cell."""

    row: CrystalRow
    formula: Formula
    primitive: PymatgenStructure | None


@_without_pymatgen_warnings
def assess_crystal(structure: Structure, *, oxidation_states: OxidationStates = "smact14") -> AssessedCrystal:
    """All that can be said of one crystal without the others."""
    crystal = compact_cell(structure)
    formula = reduced_formula(structure)
    distance = _min_distance(crystal)
    structure_valid = crystal.volume >= MIN_VOLUME and (distance is None or distance >= MIN_DISTANCE)
    composition_valid = smact_valid(formula, oxidation_states)
    number, symbol = spacegroup(crystal)
    low, high = SANE_ANGLES
    row = CrystalRow(
        id=structure.id,
        source=structure.source,
        formula=crystal.composition.reduced_formula,
        num_atoms=structure.num_atoms,
        volume=float(crystal.volume),
        min_distance=distance,
        absurd_angles=not all(low < angle < high for angle in structure.angles.tolist()),
        structure_valid=structure_valid,
        smact_valid=composition_valid,
        valid=structure_valid and composition_valid,
        spacegroup=number,
        spacegroup_symbol=symbol,
    )
    return AssessedCrystal(row, formula, primitive_cell(crystal) if row.valid else None)


def compact_cell(structure: Structure) -> PymatgenStructure:
    """The same crystal in its LLL-reduced cell, sites sorted.

    Everything here looks at the crystal, not at the choice of its cell; but on the flat cells that a bad
    sample has, spglib finds no space group and the Niggli reduction takes seconds.
    """
    return (
        to_pymatgen(structure).get_reduced_structure("LLL").get_sorted_structure(lambda site: site.specie.Z)
    )


def primitive_cell(crystal: PymatgenStructure) -> PymatgenStructure:
    """Niggli-reduced primitive cell, as StructureMatcher compares it."""
    return crystal.get_reduced_structure().get_primitive_structure()


def _min_distance(crystal: PymatgenStructure) -> float | None:
    """Shortest distance in Å between different sites, periodic; an atom's own images do not count."""
    if len(crystal) < 2:
        return None
    return float(crystal.distance_matrix[np.triu_indices(len(crystal), k=1)].min())


def spacegroup(crystal: PymatgenStructure) -> tuple[int, str]:
    """International number and symbol by spglib at `SYMMETRY_PRECISION`; (0, "") where it finds none."""
    os.environ.setdefault("SPGLIB_WARNING", "OFF")  # else its C code writes to stderr; it looks at every call
    cell = (crystal.lattice.matrix, crystal.frac_coords, crystal.atomic_numbers)
    # spglib 2.7 and 2.8 warn on every call that version 3 will raise SpglibError instead of returning None.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        try:
            found = spglib.get_symmetry_dataset(cell, symprec=SYMMETRY_PRECISION)
        except spglib.SpglibError:
            found = None
    return (0, "") if found is None else (int(found.number), str(found.international))


def reduced_formula(structure: Structure) -> Formula:
    """Atomic numbers and counts, the counts divided by their greatest common divisor."""
    numbers, counts = np.unique(structure.numbers, return_counts=True)
    divisor = math.gcd(*counts.tolist())
    return tuple(
        (number, count // divisor) for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    )


@lru_cache(maxsize=100_000)
def smact_valid(formula: Formula, oxidation_states: OxidationStates = "smact14") -> bool:
    """Charge neutrality and Pauling's rule by SMACT; elements and alloys pass.

    Args:
        formula: As `reduced_formula` gives it.
        oxidation_states: SMACT's set. "smact14" is what CDVAE and ADiT used; newer defaults of SMACT accept
            more.

    Returns:
        False as well for an element without known states, and beyond `MAX_COMBINATIONS`.
    """
    import smact
    from smact.screening import smact_validity

    symbols = [SYMBOLS[number] for number, _ in formula]
    if len(symbols) == 1 or all(symbol in smact.metals for symbol in symbols):
        return True
    try:
        states = [getattr(smact.Element(symbol), _STATES_ATTRIBUTE[oxidation_states]) for symbol in symbols]
    except KeyError:  # SMACT's tables end at lawrencium
        return False
    if not all(states) or math.prod(map(len, states)) > MAX_COMBINATIONS:
        return False
    counts = {symbol: count for symbol, (_, count) in zip(symbols, formula, strict=True)}
    return bool(smact_validity(Composition(counts), oxidation_states_set=oxidation_states))


class _Bucket(NamedTuple):
    """Crystals that could match: they share the reduced formula and the size of the primitive cell."""

    crystals: Sequence[PymatgenStructure]
    training: Sequence[PymatgenStructure]


class _Match(NamedTuple):
    first: int  # index in the bucket of the first crystal that it matches; its own if none
    novel: bool


def compare(
    assessed: Sequence[AssessedCrystal],
    training: Iterable[Structure] | None,
    workers: Workers,
) -> tuple[CrystalRow, ...]:
    """The rows with `duplicate_of` and `novel` filled by pymatgen's StructureMatcher.

    Crystals of different formulas or different primitive sizes never match, so only the others are compared.

    Args:
        assessed: In the order of the input.
        training: Of these only the formulas that occur in `assessed` are kept; None if there is no training
            set.
        workers: Who compares.
    """
    indices: dict[tuple[Formula, int], list[int]] = defaultdict(list)
    for index, crystal in enumerate(assessed):
        if crystal.primitive is not None:
            indices[crystal.formula, len(crystal.primitive)].append(index)
    known = _known_cells(training or (), {formula for formula, _ in indices}, workers)
    buckets = [
        _Bucket([assessed[index].primitive for index in members], known.get(key, []))
        for key, members in indices.items()
    ]
    rows = [crystal.row for crystal in assessed]
    matches = workers.map(_match_bucket, buckets, chunk=1)
    for members, found in zip(indices.values(), matches, strict=True):
        for index, (first, novel) in zip(members, found, strict=True):
            duplicate_of = None if members[first] == index else rows[members[first]].id
            rows[index] = replace(
                rows[index], duplicate_of=duplicate_of, novel=novel if training is not None else None
            )
    return tuple(rows)


def _known_cells(
    training: Iterable[Structure], formulas: set[Formula], workers: Workers
) -> dict[tuple[Formula, int], list[PymatgenStructure]]:
    known: dict[tuple[Formula, int], list[PymatgenStructure]] = defaultdict(list)
    relevant = (structure for structure in training if reduced_formula(structure) in formulas)
    for formula, primitive in workers.map(_formula_and_cell, relevant):
        known[formula, len(primitive)].append(primitive)
    return known


@_without_pymatgen_warnings
def _formula_and_cell(structure: Structure) -> tuple[Formula, PymatgenStructure]:
    return reduced_formula(structure), primitive_cell(compact_cell(structure))


@_without_pymatgen_warnings
def _match_bucket(bucket: _Bucket) -> list[_Match]:
    matcher = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)  # the tolerances of CDVAE and ADiT

    def same(one: PymatgenStructure, other: PymatgenStructure) -> bool:
        return bool(matcher.fit(one, other, skip_structure_reduction=True))

    groups: list[int] = []  # the first of each group
    matches: list[_Match] = []
    for index, crystal in enumerate(bucket.crystals):
        first = next((group for group in groups if same(bucket.crystals[group], crystal)), index)
        if first == index:
            groups.append(index)
        # Matching is not transitive: what matches a novel crystal may itself be known.
        novel = (first == index or matches[first].novel) and not any(
            same(known, crystal) for known in bucket.training
        )
        matches.append(_Match(first, novel))
    return matches


def crystal_figures(
    rows: Sequence[CrystalRow], *, novelty: bool, oxidation_states: OxidationStates
) -> list[Figure]:
    """The figures of compared rows; `novelty` tells whether there was a training set."""
    valid = [row for row in rows if row.valid]
    unique = [row for row in valid if row.duplicate_of is None]
    matcher = "pymatgen StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)"
    states = f"oxidation states {oxidation_states}"
    smact = f"SMACT {version('smact')}, {states}: neutral, Pauling; elements and alloys pass"

    def of_all(name: str, numerator: int, method: str) -> Figure:
        return Figure(name=name, numerator=numerator, denominator=len(rows), method=method)

    figures = [
        of_all(
            "crystal_structure_valid",
            sum(row.structure_valid for row in rows),
            f"CDVAE: distances >= {MIN_DISTANCE} Å, volume >= {MIN_VOLUME} Å³",
        ),
        of_all("crystal_smact_valid", sum(row.smact_valid for row in rows), smact),
        of_all("crystal_valid", len(valid), "both of the two above"),
        of_all(
            "crystal_absurd_angles",
            sum(row.absurd_angles for row in rows),
            "ADiT: an angle of the cell outside (50°, 130°)",
        ),
        of_all(
            "crystal_symmetric",
            sum(row.spacegroup > 1 for row in rows),
            f"spglib {spglib.__version__}, symprec {SYMMETRY_PRECISION} Å: a space group other than P1",
        ),
        Figure(
            name="crystal_unique_of_valid",
            numerator=len(unique),
            denominator=len(valid),
            method=f"{matcher}: groups among the valid",
        ),
    ]
    if novelty:
        figures.append(
            Figure(
                name="crystal_novel_of_unique",
                numerator=sum(bool(row.novel) for row in unique),
                denominator=len(unique),
                method=f"{matcher}: groups without a match in the training set",
            )
        )
    return figures
