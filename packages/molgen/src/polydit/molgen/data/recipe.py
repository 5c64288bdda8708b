"""What `molgen data make` generates. Standard library only: the command line reads its defaults here."""

from __future__ import annotations

from dataclasses import dataclass

from polydit.core.errors import InputError

MAX_HEAVY_ATOMS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class MoleculeRecipe:
    """Molecules to generate.

    Attributes:
        max_heavy_atoms: Largest number of atoms other than hydrogen, 1..9.
        num: Number of distinct molecules, mixed as in QM9; None = all that random drawing finds before new ones
            become rare.
        conformers: Most conformers of one molecule.
        seed: Seed of graphs and conformers.
    """

    max_heavy_atoms: int = 6
    num: int | None = None
    conformers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.max_heavy_atoms <= MAX_HEAVY_ATOMS:
            raise InputError(
                f"{self.max_heavy_atoms} heavy atoms are out of range", expected=f"1..{MAX_HEAVY_ATOMS}"
            )
        if self.conformers < 1:
            raise InputError(f"{self.conformers} conformers are out of range", expected="at least 1")
        if self.num is not None and self.num < 0:
            raise InputError(f"{self.num} molecules are out of range", expected="0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class CrystalRecipe:
    """Crystals to generate.

    Attributes:
        estimated: Besides the compounds of the literature, charge-balanced ones of the same prototypes whose lattice
            constants are estimated from ionic radii.
    """

    estimated: bool = False
