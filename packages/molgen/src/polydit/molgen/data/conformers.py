"""3D positions of a molecular graph: ETKDGv3 (Riniker & Landrum 2015; Wang et al. 2020), then MMFF94 (Halgren 1996)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from polydit.core.errors import InputError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

RMSD_DISTINCT = 0.3  # Å, over heavy atoms and the hydrogens of hetero atoms
MMFF_ITERATIONS = 1000
EMBEDDINGS_PER_CONFORMER = 3
EMBED_ITERATIONS = 20  # a cage that cannot be embedded is given up soon
MAX_HEAVY_ATOMS = 150  # a larger graph would take minutes


@dataclass(frozen=True, slots=True)
class Minimum:
    """A conformer that is a minimum of MMFF94: its id in the molecule and its energy in kcal/mol."""

    conformer: int
    energy: float


def embed(mol: Mol, *, seed: int, conformers: int = 1) -> tuple[Mol, list[Minimum]]:
    """The molecule with hydrogens and 3D conformers, and the distinct minima among them by rising energy.

    Args:
        mol: Sanitised molecule; its conformers, if any, are not used.
        seed: Below 2^31.
        conformers: Most minima.

    Raises:
        InputError: No conformer was found, or none reached a minimum of MMFF94.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import AllChem

    if mol.GetNumHeavyAtoms() > MAX_HEAVY_ATOMS:
        raise InputError(
            f"{mol.GetNumHeavyAtoms()} heavy atoms are too many to embed", expected=f"<= {MAX_HEAVY_ATOMS}"
        )
    mol = Chem.AddHs(mol)
    settings = AllChem.ETKDGv3()
    settings.randomSeed = seed
    settings.maxIterations = EMBED_ITERATIONS
    with rdBase.BlockLogs():
        if not AllChem.EmbedMultipleConfs(
            mol, EMBEDDINGS_PER_CONFORMER * conformers if conformers > 1 else 1, settings
        ):
            raise InputError("no 3D conformer was found")
        if not AllChem.MMFFHasAllMoleculeParams(mol):
            raise InputError("MMFF94 has no parameters for it")
        results = AllChem.MMFFOptimizeMoleculeConfs(mol, maxIters=MMFF_ITERATIONS)
    minima = [
        Minimum(conformer.GetId(), energy)
        for conformer, (unfinished, energy) in zip(mol.GetConformers(), results, strict=True)
        if unfinished == 0
    ]
    if not minima:
        raise InputError(f"MMFF94 did not converge in {MMFF_ITERATIONS} iterations")
    return mol, _distinct(mol, sorted(minima, key=lambda minimum: minimum.energy), conformers)


def _distinct(mol: Mol, minima: list[Minimum], most: int) -> list[Minimum]:
    from rdkit.Chem import rdMolAlign

    skeleton = _without_carbon_hydrogens(mol)
    if skeleton.GetNumAtoms() < 3:  # two points have one shape
        return minima[:1]
    kept: list[Minimum] = []
    for minimum in minima:
        if len(kept) == most:
            break
        ids = [other.conformer for other in kept]
        if all(rdMolAlign.GetBestRMS(skeleton, skeleton, minimum.conformer, i) > RMSD_DISTINCT for i in ids):
            kept.append(minimum)
    return kept


def _without_carbon_hydrogens(mol: Mol) -> Mol:
    """Methyl groups turn freely and their permutations make a best fit slow: they tell no conformers apart."""
    from rdkit import Chem

    edit = Chem.RWMol(mol)
    for atom in reversed(list(mol.GetAtoms())):
        if atom.GetAtomicNum() == 1 and atom.GetNeighbors()[0].GetAtomicNum() == 6:
            edit.RemoveAtom(atom.GetIdx())
    return edit.GetMol()
