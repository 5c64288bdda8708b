"""CDVAE's figures, SMACT, space groups and StructureMatcher on crystals whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from ase.build import bulk, make_supercell
from ase.spacegroup import crystal as build
from pymatgen.core import Composition
from pymatgen.core.structure_matcher import StructureMatcher
from smact.screening import smact_validity

from polydit.molgen.data.interop import from_ase, to_pymatgen
from polydit.molgen.data.structure import NUMBERS, Structure
from polydit.molgen.evaluate import Evaluation, evaluate_structures
from polydit.molgen.evaluate.crystals import assess_crystal, smact_valid


def salt(name: str = "salt", a: float = 5.64, cation: str = "Na", anion: str = "Cl") -> Structure:
    return from_ase(bulk(cation + anion, "rocksalt", a=a), id=name)


def cubic(symbols: Sequence[str], frac: object, a: float = 4.0, name: str = "cubic") -> Structure:
    numbers = np.array([NUMBERS[symbol] for symbol in symbols])
    return Structure(id=name, numbers=numbers, positions=np.array(frac, float) * a, cell=np.eye(3) * a)


def formula(text: str) -> tuple[tuple[int, int], ...]:
    composition = Composition(text)
    return tuple(sorted((element.Z, int(count)) for element, count in composition.items()))


def counts(evaluation: Evaluation) -> dict[str, tuple[int, int]]:
    return {figure.name: (figure.numerator, figure.denominator) for figure in evaluation.figures}


def test_rock_salt_passes_everything() -> None:
    row = assess_crystal(salt()).row
    assert (row.structure_valid, row.smact_valid, row.valid, row.absurd_angles) == (True, True, True, False)
    assert (row.formula, row.num_atoms, row.spacegroup, row.spacegroup_symbol) == ("NaCl", 2, 225, "Fm-3m")
    assert row.min_distance == pytest.approx(2.82)
    assert row.volume == pytest.approx(5.64**3 / 4)


@pytest.mark.parametrize(("distance", "valid"), [(0.49, False), (0.51, True)])
def test_atoms_may_not_overlap(distance: float, valid: bool) -> None:
    row = assess_crystal(cubic(["Na", "Cl"], [[0, 0, 0], [distance / 4, 0, 0]])).row
    assert row.min_distance == pytest.approx(distance)
    assert (row.structure_valid, row.valid) == (valid, valid)


def test_distances_reach_over_the_boundary() -> None:
    row = assess_crystal(cubic(["Na", "Cl"], [[0.02, 0, 0], [0.95, 0, 0]])).row
    assert row.min_distance == pytest.approx(0.07 * 4)
    assert not row.structure_valid


def test_two_atoms_in_one_place_are_invalid_and_have_no_space_group() -> None:
    row = assess_crystal(cubic(["Na", "Na"], [[0, 0, 0], [0, 0, 0]])).row
    assert not row.structure_valid
    assert (row.spacegroup, row.spacegroup_symbol) == (0, "")


def test_a_single_atom_has_no_distance_and_needs_volume() -> None:
    assert assess_crystal(cubic(["Cu"], [[0, 0, 0]])).row.structure_valid
    tiny = assess_crystal(cubic(["Cu"], [[0, 0, 0]], a=0.46)).row  # 0.097 Å³
    assert tiny.min_distance is None
    assert not tiny.structure_valid


def test_angles_outside_of_50_to_130_degrees_are_absurd_but_not_invalid() -> None:
    cell = np.array([[4.0, 0, 0], [4 * np.cos(np.radians(45)), 4 * np.sin(np.radians(45)), 0], [0, 0, 4]])
    row = assess_crystal(
        Structure(id="flat", numbers=np.array([29]), positions=np.zeros((1, 3)), cell=cell)
    ).row
    assert row.absurd_angles
    assert row.structure_valid


def test_a_hopelessly_skewed_cell_of_rock_salt_is_still_rock_salt() -> None:
    """The same lattice by vectors hundreds of cells long, on which spglib alone finds no space group."""
    plain = salt()
    assert plain.cell is not None
    skew = np.array([[1, 0, 0], [300, 1, 0], [-200, 170, 1]])
    row = assess_crystal(
        Structure(id="skewed", numbers=plain.numbers, positions=plain.positions, cell=skew @ plain.cell)
    ).row
    assert row.absurd_angles
    assert (row.spacegroup, row.valid) == (225, True)
    assert row.min_distance == pytest.approx(2.82)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("NaCl", True), ("BaTiO3", True), ("NaCl2", False), ("Na2Cl", False),
        ("C", True), ("He", True),  # elements
        ("FeNi", True), ("Cu3Au", True),  # alloys
        ("HeNa2", False), ("ArO2", False), ("PmO", False),  # no oxidation states known
        ("OgO2", False),  # beyond SMACT's tables
    ],
)  # fmt: skip
def test_smact_validity_of_known_compositions(text: str, valid: bool) -> None:
    assert smact_valid(formula(text)) is valid


@pytest.mark.parametrize("states", ["smact14", "icsd24", "pymatgen_sp"])
def test_smact_validity_is_that_of_the_package(states: str) -> None:
    texts = [
        "LiFeO2",
        "KMgF3",
        "CsPbI3",
        "GaAs",
        "AcO",
        "XeF2",
        "NaCl2",
        "SrZrN3",
        "TlHgF3",
        "InGeO2",
        "PdPtO3",
    ]
    found = [smact_valid(formula(text), states) for text in texts]  # type: ignore[arg-type]
    assert found == [smact_validity(text, oxidation_states_set=states) for text in texts]
    assert len(set(found)) == 2


def test_too_many_combinations_of_states_are_invalid() -> None:
    text = "SeTeSPAsMnFeCrO"  # 20 million; SMACT alone stops at the first that fits
    assert smact_validity(text, oxidation_states_set="smact14")
    assert not smact_valid(formula(text))


def test_uniqueness_sees_through_supercells_scale_and_order() -> None:
    cell = bulk("NaCl", "rocksalt", a=5.64)
    structures = [
        salt("first"),
        from_ase(make_supercell(cell, 2 * np.eye(3)), id="supercell"),
        from_ase(cell[[1, 0]], id="reordered"),
        salt("stretched", a=5.9),
        from_ase(bulk("NaCl", "cesiumchloride", a=3.4), id="another structure"),
        salt("another formula", anion="Br"),
        cubic(["Na", "Cl"], [[0, 0, 0], [0.05, 0, 0]], name="invalid"),
    ]
    evaluation = evaluate_structures(structures)
    assert [row.duplicate_of for row in evaluation.crystals] == [
        None,
        "first",
        "first",
        "first",
        None,
        None,
        None,
    ]
    assert counts(evaluation) == {
        "read": (7, 7),
        "crystal_structure_valid": (6, 7),
        "crystal_smact_valid": (7, 7),
        "crystal_valid": (6, 7),
        "crystal_absurd_angles": (0, 7),
        "crystal_symmetric": (7, 7),
        "crystal_unique_of_valid": (3, 6),
    }


def test_grouping_by_size_changes_nothing() -> None:
    """Against pymatgen's own grouping, on disordered carbon, where matching depends on the order."""
    generator = np.random.default_rng(3)
    structures = [
        cubic(["C"] * size, frac, a=3.2 * size ** (1 / 3), name=f"{size}-{index}")
        for size in (1, 2, 4)
        for index, frac in enumerate(np.round(generator.random((12, size, 3)) * 4) / 4)
    ]
    valid = [s for s in structures if assess_crystal(s).row.valid]
    evaluation = evaluate_structures(valid)
    matcher = StructureMatcher(ltol=0.3, stol=0.5, angle_tol=10)
    groups = matcher.group_structures([to_pymatgen(structure) for structure in valid])
    assert 1 < len(groups) < len(valid)
    assert counts(evaluation)["crystal_unique_of_valid"] == (len(groups), len(valid))


def test_novelty_is_measured_against_the_training_set() -> None:
    made = [salt("known"), salt("known again", a=5.7), salt("new", cation="K"), salt("also new", anion="F")]
    evaluation = evaluate_structures(made, training=[salt("training", a=5.5), salt("other", cation="Li")])
    assert [row.novel for row in evaluation.crystals] == [False, False, True, True]
    assert counts(evaluation)["crystal_novel_of_unique"] == (2, 3)
    assert counts(evaluation)["training_read"] == (2, 2)


def test_molecules_and_crystals_are_counted_apart() -> None:
    water = Structure(
        id="water",
        numbers=np.array([8, 1, 1]),
        positions=np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]),
    )
    evaluation = evaluate_structures([salt(), water])
    assert counts(evaluation)["read"] == (2, 2)
    assert counts(evaluation)["edm_molecule_stable"] == (1, 1)
    assert counts(evaluation)["crystal_valid"] == (1, 1)


def test_the_method_names_the_set_of_oxidation_states() -> None:
    evaluation = evaluate_structures([salt()], oxidation_states="pymatgen_sp")
    assert "oxidation states pymatgen_sp" in evaluation["crystal_smact_valid"].method


def test_two_processes_find_what_one_finds() -> None:
    rutile = build(
        ["Ti", "O"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.59, 4.59, 2.96, 90, 90, 90]
    )
    made = [salt("a"), salt("b"), from_ase(rutile, id="c"), salt("d", cation="K")]
    alone = evaluate_structures(made, training=[salt("t")])
    together = evaluate_structures(made, training=[salt("t")], workers=2)
    assert together.figures == alone.figures
    assert together.crystals == alone.crystals
    assert alone.crystals[2].spacegroup == 136
