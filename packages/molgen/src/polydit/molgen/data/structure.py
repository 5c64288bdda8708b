"""The one typed sample of the package: a molecule or a crystal. Imports numpy only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from polydit.core.errors import InputError

Kind = Literal["molecule", "crystal"]

_TABLE = """
X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr
Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu
Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr
Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og
"""
SYMBOLS = tuple(_TABLE.split())  # index = atomic number; 0 is no element
NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number}

MAX_LENGTH = 1e6  # Å; what is larger is a damaged number, and its powers overflow
MIN_CELL_VOLUME = 1e-3  # Å^3; below this the lattice vectors span no volume: no coordinate is fractional
_WRAP_MARGIN = 1e-6  # a coordinate that rounding left just under 1 is the 0 of its source


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Structure:
    """One molecule or crystal.

    Arrays are converted to int64 and float64 and checked when the object is made.

    Attributes:
        id: Name, unique within its source.
        numbers: Atomic numbers, 1..118.
        positions: Cartesian coordinates in Å.
        cell: Lattice vectors as rows, in Å; None means a molecule.
        bonds: Rows (i, j, order) with order 1, 2, 3 or 12 = aromatic (RDKit's BondType), when the source states them.
        charges: Formal charges, when the source states them.
        spacegroup: International number 1..230; 0 = unknown or molecule.
        source: Where it was read, as "file:row".
        properties: What else the source says of it.

    Raises:
        InputError: An array has a wrong shape, a value that is not finite or out of its range.
    """

    id: str
    numbers: Int[np.ndarray, " n"]
    positions: Float[np.ndarray, "n 3"]
    cell: Float[np.ndarray, "3 3"] | None = None
    bonds: Int[np.ndarray, "m 3"] | None = None
    charges: Int[np.ndarray, " n"] | None = None
    spacegroup: int = 0
    source: str = ""
    properties: Mapping[str, float | int | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = self._store("numbers", np.int64, (-1,))
        if not len(numbers):
            raise self._error("it has no atoms")
        if numbers.min() < 1 or numbers.max() > 118:
            raise self._error("an atomic number is out of range", "1..118")
        self._store("positions", np.float64, (len(numbers), 3))
        if self.cell is not None:
            cell = self._store("cell", np.float64, (3, 3))
            if abs(np.linalg.det(cell)) < MIN_CELL_VOLUME:
                raise self._error("the lattice vectors span no volume", "three independent vectors in Å")
        if self.bonds is not None:
            bonds = self._store("bonds", np.int64, (-1, 3))
            if len(bonds) and (bonds[:, :2].min() < 0 or bonds[:, :2].max() >= len(numbers)):
                raise self._error("a bond names an atom that does not exist", f"atoms 0..{len(numbers) - 1}")
        if self.charges is not None:
            self._store("charges", np.int64, (len(numbers),))
        if not 0 <= self.spacegroup <= 230:
            raise self._error(f"space group {self.spacegroup} does not exist", "1..230, or 0 for unknown")

    def _store(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        array: np.ndarray = np.asarray(getattr(self, name), dtype=dtype)
        fits = array.ndim == len(shape) and all(w in (-1, s) for w, s in zip(shape, array.shape, strict=True))
        if not fits:
            raise self._error(f"{name} has shape {array.shape}", str(shape).replace("-1", "n"))
        if not np.isfinite(array).all():
            raise self._error(f"{name} has a value that is not a finite number")
        if dtype is np.float64 and len(array) and np.abs(array).max() > MAX_LENGTH:
            raise self._error(f"{name} has a value of {np.abs(array).max():.3g} Å", f"up to {MAX_LENGTH:g}")
        object.__setattr__(self, name, array)
        return array

    def _error(self, problem: str, expected: str | None = None) -> InputError:
        return InputError(problem, where=self.source or self.id, expected=expected)

    @property
    def kind(self) -> Kind:
        """What it is: a structure with a cell is a crystal."""
        return "molecule" if self.cell is None else "crystal"

    @property
    def num_atoms(self) -> int:
        """Number of atoms, hydrogens included."""
        return len(self.numbers)

    @property
    def heavy_atoms(self) -> int:
        """Number of atoms other than hydrogen."""
        return int((self.numbers != 1).sum())

    @property
    def symbols(self) -> list[str]:
        """Element symbols in the order of the atoms."""
        return [SYMBOLS[number] for number in self.numbers]

    @property
    def formula(self) -> str:
        """All atoms in Hill order: C, H, then by alphabet; without carbon all by alphabet."""
        counts = Counter(self.symbols)
        first = [symbol for symbol in ("C", "H") if "C" in counts and symbol in counts]
        order = first + sorted(set(counts) - set(first))
        return "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in order)

    @property
    def frac_coords(self) -> Float[np.ndarray, "n 3"]:
        """Fractional coordinates in [0, 1); zeros for a molecule, as in ADiT's data object."""
        if self.cell is None:
            return np.zeros_like(self.positions)
        frac = np.linalg.solve(self.cell.T, self.positions.T).T
        return np.maximum(frac - np.floor(frac + _WRAP_MARGIN), 0.0)

    @property
    def lengths(self) -> Float[np.ndarray, " 3"]:
        """Lengths of the lattice vectors in Å; zeros for a molecule."""
        return np.zeros(3) if self.cell is None else np.linalg.norm(self.cell, axis=1)

    @property
    def angles(self) -> Float[np.ndarray, " 3"]:
        """Angles alpha (b, c), beta (a, c), gamma (a, b) in degrees; zeros for a molecule."""
        if self.cell is None:
            return np.zeros(3)
        a, b, c = self.cell / self.lengths[:, None]
        return np.degrees(np.arccos(np.clip([b @ c, a @ c, a @ b], -1.0, 1.0)))


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that could not become a Structure.

    Attributes:
        source: "file:row".
        reason: One sentence.
    """

    source: str
    reason: str
