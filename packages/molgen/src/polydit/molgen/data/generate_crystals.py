"""Real crystals made from their prototypes, and further compounds whose lattice constants are estimates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from math import sqrt
from typing import TYPE_CHECKING

from polydit.molgen.data.cells import niggli
from polydit.molgen.data.prototypes import LITERATURE, PROTOTYPES
from polydit.molgen.data.structure import SYMBOLS, Structure

if TYPE_CHECKING:
    from ase import Atoms

ANION_CHARGES = {
    **dict.fromkeys(("F", "Cl", "Br", "I"), -1),
    **dict.fromkeys(("O", "S", "Se", "Te"), -2),
    **dict.fromkeys(("N", "P", "As"), -3),
}
# Pauling's radius ratios r(cation)/r(anion) of each coordination, widened by a tenth: the ions are not hard spheres.
RADIUS_RATIOS = {
    "zinc blende": (0.2, 0.5),
    "wurtzite": (0.2, 0.5),
    "rock salt": (0.37, 0.80),
    "rutile": (0.37, 0.80),
    "caesium chloride": (0.66, 1.4),
    "fluorite": (0.66, 1.4),
    "antifluorite": (0.2, 0.6),
}
COORDINATION = {  # Roman numerals of the first and the last site, as Shannon's table names them
    "zinc blende": ("IV", "IV"),
    "wurtzite": ("IV", "IV"),
    "rock salt": ("VI", "VI"),
    "rutile": ("VI", "III"),
    "caesium chloride": ("VIII", "VIII"),
    "fluorite": ("VIII", "IV"),
    "antifluorite": ("IV", "VIII"),
}
SIMPLE_LATTICES = {
    "fcc",
    "bcc",
    "hcp",
    "diamond",
    "sc",
    "bct",
    "rhombohedral",
}  # others lack their basis in ASE
PEROVSKITE_ANIONS = ("O", "F", "Cl", "Br", "I")
OCTAHEDRON = (0.41, 0.80)  # radius ratios of six anions around the second cation
GOLDSCHMIDT = (0.88, 1.03)  # tolerance factors of cubic perovskites


def generate_crystals(*, estimated: bool = False) -> Iterator[Structure]:
    """Elements and compounds, primitive Niggli cells; ids name formula and prototype.

    Properties: `prototype`, `estimated` (1 where the lattice constants come from ionic radii, not from a measurement).

    Args:
        estimated: Also charge-balanced compounds of the same prototypes that the literature table lacks.
    """
    yield from elements()
    for prototype, compounds in LITERATURE.items():
        for formula, values in compounds.items():
            yield compound(prototype, formula, values)
    if estimated:
        for prototype, formula, values in estimated_compounds():
            yield compound(prototype, formula, values, estimated=True)


def elements() -> Iterator[Structure]:
    """The elements whose structure is a simple lattice, with ASE's reference lattice constants."""
    from ase.build import bulk
    from ase.data import reference_states

    for symbol, state in zip(SYMBOLS, reference_states, strict=False):
        if state is None or state["symmetry"] not in SIMPLE_LATTICES:
            continue
        try:
            atoms = bulk(symbol)
        except (ValueError, KeyError, RuntimeError):  # the table lacks an angle or a basis
            continue
        yield _crystal(atoms, symbol, state["symmetry"], estimated=False)


def compound(
    prototype: str, formula: str, values: tuple[float, ...], *, estimated: bool = False
) -> Structure:
    """Crystal of a prototype.

    Args:
        prototype: Key of `PROTOTYPES`.
        formula: Elements in the order of the prototype's sites, such as "CaF2".
        values: Lattice constants in Å and internal parameters, in the prototype's order.
        estimated: Whether the values are estimates.
    """
    from ase.spacegroup import crystal

    kind = PROTOTYPES[prototype]
    atoms = crystal(
        re.findall("[A-Z][a-z]?", formula),
        basis=kind.positions(values),
        spacegroup=kind.spacegroup,
        cellpar=kind.cell(values),
        primitive_cell=True,
    )
    return _crystal(atoms, formula, prototype, estimated=estimated)


def _crystal(atoms: Atoms, formula: str, prototype: str, *, estimated: bool) -> Structure:
    from polydit.molgen.data.cells import find_spacegroup
    from polydit.molgen.data.interop import from_ase

    crystal = from_ase(atoms, id=f"{formula}-{prototype.replace(' ', '-')}")
    return replace(
        niggli(crystal),
        spacegroup=find_spacegroup(crystal),
        properties={"formula": formula, "prototype": prototype, "estimated": int(estimated)},
    )


# --- estimates ------------------------------------------------------------------------------------------------------


def estimated_compounds() -> Iterator[tuple[str, str, tuple[float, ...]]]:
    """(prototype, formula, constants) of charge-balanced compounds that the literature table lacks.

    Lengths are sums of Shannon's radii (Acta Cryst. A32, 751, 1976); which prototype a pair of ions takes is decided by
    their ratio, so that a pair near a limit appears in both prototypes.
    """
    for prototype in COORDINATION:
        counts = PROTOTYPES[prototype].counts
        for (symbol, charge), (anion, anion_charge) in product(cation_charges(), ANION_CHARGES.items()):
            formula = _formula((symbol, anion), counts)
            if counts[0] * charge + counts[1] * anion_charge or formula in LITERATURE[prototype]:
                continue
            if values := _binary_constants(prototype, (symbol, charge), (anion, anion_charge)):
                yield prototype, formula, values
    yield from _estimated_perovskites()


def _estimated_perovskites() -> Iterator[tuple[str, str, tuple[float, ...]]]:
    for (first, a), (second, b), anion in product(cation_charges(), cation_charges(), PEROVSKITE_ANIONS):
        formula = _formula((first, second, anion), PROTOTYPES["perovskite"].counts)
        charge = ANION_CHARGES[anion]
        if a + b + 3 * charge or first == second or formula in LITERATURE["perovskite"]:
            continue
        radii = [
            ionic_radius(first, a, "XII"),
            ionic_radius(second, b, "VI"),
            ionic_radius(anion, charge, "VI"),
        ]
        r_a, r_b, r_x = (radius or 0.0 for radius in radii)
        if not all(radii) or not OCTAHEDRON[0] <= r_b / r_x <= OCTAHEDRON[1]:
            continue
        if GOLDSCHMIDT[0] <= (r_a + r_x) / (sqrt(2) * (r_b + r_x)) <= GOLDSCHMIDT[1]:
            yield "perovskite", formula, (round(max(2 * (r_b + r_x), sqrt(2) * (r_a + r_x)), 3),)


def _binary_constants(
    prototype: str, cation: tuple[str, int], anion: tuple[str, int]
) -> tuple[float, ...] | None:
    first, last = COORDINATION[prototype]
    r_cation, r_anion = ionic_radius(*cation, first), ionic_radius(*anion, last)
    if r_cation is None or r_anion is None:
        return None
    low, high = RADIUS_RATIOS[prototype]
    if not low <= r_cation / r_anion <= high:
        return None
    distance = r_cation + r_anion
    if prototype == "wurtzite":  # ideal: c/a = sqrt(8/3), u = 3/8
        a = sqrt(8 / 3) * distance
        return round(a, 3), round(a * sqrt(8 / 3), 3), 0.375
    if prototype == "rutile":  # mean of the six distances at c/a = 0.65, u = 0.305
        return round(distance / 0.428, 3), round(0.65 * distance / 0.428, 3), 0.305
    edges = {"rock salt": 2.0, "caesium chloride": 2 / sqrt(3)}
    return (round(edges.get(prototype, 4 / sqrt(3)) * distance, 3),)


def _formula(symbols: tuple[str, ...], counts: tuple[int, ...]) -> str:
    return "".join(f"{s}{n if n > 1 else ''}" for s, n in zip(symbols, counts, strict=True))


@cache
def cation_charges() -> tuple[tuple[str, int], ...]:
    """(element, charge) of the common positive oxidation states of metals up to bismuth."""
    from pymatgen.core import Element

    metals = [Element(symbol) for symbol in SYMBOLS[3:84]]
    return tuple(
        (element.symbol, int(charge))
        for element in metals
        if element.is_metal or element.is_metalloid
        for charge in element.common_oxidation_states
        if charge > 0
    )


@cache
def ionic_radius(symbol: str, charge: int, coordination: str) -> float | None:
    """Shannon's crystal-chemical ionic radius in Å, at the nearest coordination that the table has; None without any.

    Args:
        symbol: Element.
        charge: Oxidation state.
        coordination: Roman numeral.
    """
    from pymatgen.core import Element

    table = Element(symbol).data.get("Shannon radii", {}).get(str(charge))
    if not table:
        return None
    order = ("II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
    known = [name for name in order if name in table]
    if not known:
        return None
    nearest = min(known, key=lambda name: abs(order.index(name) - order.index(coordination)))
    spins = table[nearest]
    return float(spins.get("", spins.get("High Spin", next(iter(spins.values()))))["ionic_radius"])
