"""Structures as padded tensors: what the networks eat and what they return.

Shapes: b structures, n atom slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from polydit.molgen.data.structure import Structure

CRYSTAL, MOLECULE = 1, 2  # ADiT's labels of the two data sets; 0 is the null class
KIND_LABELS = {"crystal": CRYSTAL, "molecule": MOLECULE}
MAX_ELEMENTS = 100  # rows of the type table: 0 = masked, 1..99 = atomic numbers


@dataclass(frozen=True, kw_only=True, eq=False)
class AtomBatch:
    """Molecules and crystals side by side (ADiT's data object, padded instead of concatenated).

    Args:
        numbers: Atomic numbers, 0 in padding (and for masked types in training).
        positions: Å, not centred; zero in padding.
        frac_coords: Fractional coordinates in [0, 1) of crystals; zero for molecules.
        mask: True for atoms.
        lengths_scaled: Lattice lengths in Å over the cube root of the number of atoms; zero for molecules.
        angles: Lattice angles in radians; zero for molecules.
        kind: 1 crystal, 2 molecule.
        spacegroup: 1..230; 0 unknown or molecule.
    """

    numbers: Int[Tensor, "b n"]
    positions: Float[Tensor, "b n 3"]
    frac_coords: Float[Tensor, "b n 3"]
    mask: Bool[Tensor, "b n"]
    lengths_scaled: Float[Tensor, "b 3"]
    angles: Float[Tensor, "b 3"]
    kind: Int[Tensor, " b"]
    spacegroup: Int[Tensor, " b"]

    @property
    def num_atoms(self) -> Int[Tensor, " b"]:
        """Atoms of each structure."""
        return self.mask.sum(1)

    @property
    def composition(self) -> Float[Tensor, "b 100"]:
        """Atoms of each element, by atomic number."""
        counts = torch.zeros(len(self.numbers), MAX_ELEMENTS, device=self.numbers.device)
        return counts.scatter_add_(1, self.numbers, self.mask.float())

    def to(self, device: torch.device | str) -> AtomBatch:
        """The same batch on another device."""
        return AtomBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def collate(structures: Sequence[Structure]) -> AtomBatch:
    """Pad structures to the longest of them."""
    sizes = [s.num_atoms for s in structures]
    shape = (len(sizes), max(sizes))
    numbers = np.zeros(shape, dtype=np.int64)
    positions, frac_coords = np.zeros((*shape, 3), dtype=np.float32), np.zeros((*shape, 3), dtype=np.float32)
    lattices = np.zeros((len(sizes), 2, 3), dtype=np.float32)
    for row, (structure, n) in enumerate(zip(structures, sizes, strict=True)):
        numbers[row, :n] = structure.numbers
        positions[row, :n] = structure.positions
        if structure.cell is not None:
            frac_coords[row, :n] = structure.frac_coords % 1.0
            lattices[row, 0] = structure.lengths / n ** (1 / 3)
            lattices[row, 1] = np.deg2rad(structure.angles)
    return AtomBatch(
        numbers=torch.from_numpy(numbers),
        positions=torch.from_numpy(positions),
        frac_coords=torch.from_numpy(frac_coords),
        mask=torch.arange(shape[1])[None, :] < torch.tensor(sizes)[:, None],
        lengths_scaled=torch.from_numpy(lattices[:, 0].copy()),
        angles=torch.from_numpy(lattices[:, 1].copy()),
        kind=torch.tensor([KIND_LABELS[s.kind] for s in structures]),
        spacegroup=torch.tensor([s.spacegroup for s in structures]),
    )
