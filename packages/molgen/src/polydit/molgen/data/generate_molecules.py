"""Small organic molecules made from nothing: random graphs, ETKDG conformers, MMFF94 geometries.

Graphs: a random tree of C, N, O, F, then ring closures and raised bond orders, kept when RDKit accepts them and no
unstable group is found. Everything is a function of the recipe: the number of worker processes changes only the time.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count, islice
from typing import TYPE_CHECKING

from polydit.core.errors import InputError
from polydit.core.jobs.workers import Workers
from polydit.molgen.data.conformers import embed
from polydit.molgen.data.interop import from_rdkit
from polydit.molgen.data.recipe import MoleculeRecipe
from polydit.molgen.data.structure import Structure

if TYPE_CHECKING:
    from rdkit.Chem import Mol, RWMol

VALENCE = {"C": 4, "N": 3, "O": 2, "F": 1}
SIZE_WEIGHTS = (1, 1, 2, 4, 8, 20, 60, 180, 700)  # of 1..9 heavy atoms: about as QM9's share grows

# Molecules with one of these react with water, air or themselves, or cannot be built: enumeration finds many of them,
# chemists none. After the rules of GDB (Fink & Reymond, J. Chem. Inf. Model. 2007, 47, 342).
UNSTABLE_GROUPS = (
    "[OX2,F]-[OX2,F]",
    "[#7]-F",
    "[NX3;!a]-[NX3,OX2;!a]",  # hydrazines, hydroxylamines
    "[NX2;!R]=[NX2;!R]",
    "[NX2H]=[#7]",
    "[O,N;X2,X3;!H0]-[CX4]-[O,N,F]",  # gem-diols, hemiacetals, aminals
    "[NX3,OX2]-[CX4]-F",
    "[O,N]-[CX4](-[O,N,F])-[O,N,F]",
    "[O,N;!H0;!$(*-C=[O,N])]-[CX3]=[CX3]",  # enols, enamines
    "[OX2,NX3]-[CX2]#C",
    "[OX2]-[CX2]#N",
    "F-[CX3]=[O,N]",
    "[OX2H]-C(=[O,N])-[#7,#8]",  # carbamic and carbonic acids
    "*=[CX2]=*",
    "[R]#[R]",
    "[o,nX3]:[o,nX3]",
    "[a;r3,r4]",
    "*1=**=*1",  # cyclobutadienes
    "[r3]1=[r3][r3;O,N]1",  # oxirenes, 1H-azirines
    "[r3,r4;R2,R3]~[r3,r4]=,:,#[r3,r4]",  # a double bond in a small ring that is fused to another
    "[#6;R2,R3;r3,r4;!X4]",
    "[R3,R4,R5,R6]",  # cages
)
HETERO_CHAIN = "[!#6;!#1]~[!#6;!#1]~[!#6;!#1]"  # three in a row, unless all in an aromatic ring
AROMATIC_HETERO_CHAIN = "[n,o]:[n,o]:[n,o]"

BLOCK_DRAWS = 500  # draws of one unit of work
WINDOW_BLOCKS, RARE = 8, 2  # drawing ends when the last blocks together found fewer new graphs than this


@dataclass(frozen=True, slots=True)
class Mix:
    """Probabilities of elements and of the order of a new bond."""

    elements: Mapping[str, float]
    orders: Mapping[int, float]


QM9_MIX = Mix({"C": 0.72, "N": 0.13, "O": 0.14, "F": 0.01}, {1: 0.82, 2: 0.15, 3: 0.03})
EVEN_MIX = Mix(
    {"C": 0.55, "N": 0.20, "O": 0.18, "F": 0.07}, {1: 0.75, 2: 0.18, 3: 0.07}
)  # finds rare graphs sooner


@dataclass(frozen=True, slots=True)
class Block:
    """One unit of drawing: numbers of heavy atoms to draw from, the mix, and the seed of the draws."""

    sizes: tuple[int, ...]
    mix: Mix
    seed: str


def generate_molecules(recipe: MoleculeRecipe, *, workers: int = 1) -> Iterator[Structure]:
    """Molecules with bonds, charges 0 and 3D positions (Å), all conformers of one after another.

    Properties: `smiles` (canonical, without stereo), `energy_kcal_mol` (MMFF94), `conformer` (0 = lowest energy).
    A graph that cannot be embedded, does not converge, or has no legible conformer is left out; `recipe.num` counts
    those that remain.

    Raises:
        InputError: New graphs became rare before `recipe.num` molecules were found.
    """
    found = 0
    with Workers(workers) as pool:
        built = pool.map(partial(build_conformers, recipe=recipe), distinct_graphs(recipe, pool), chunk=16)
        wanted = islice((group for group in built if group), recipe.num)
        for found, group in enumerate(wanted, 1):
            for structure in group:
                yield replace(structure, id=f"m{found:06d}-{structure.properties['conformer']}")
    if recipe.num is not None and found < recipe.num:
        raise InputError(
            f"only {found} distinct molecules of up to {recipe.max_heavy_atoms} heavy atoms were found",
            expected=str(recipe.num),
            hint="Allow more heavy atoms or ask for fewer molecules",
        )


# --- graphs ---------------------------------------------------------------------------------------------


def distinct_graphs(recipe: MoleculeRecipe, pool: Workers | None = None) -> Iterator[str]:
    """Canonical SMILES, each once, in an order that depends on the recipe only."""
    seen: set[str] = set()
    pool = pool or Workers(1)
    sizes = tuple(range(1, recipe.max_heavy_atoms + 1))
    if recipe.num is not None:
        yield from _until_rare(sizes, QM9_MIX, recipe.seed, seen, pool)
        return
    for size in sizes:
        yield from _until_rare((size,), EVEN_MIX, recipe.seed, seen, pool)


def _until_rare(sizes: tuple[int, ...], mix: Mix, seed: int, seen: set[str], pool: Workers) -> Iterator[str]:
    blocks = (Block(sizes, mix, f"{seed}:{sizes}:{number}") for number in count())
    window: deque[int] = deque(maxlen=WINDOW_BLOCKS)
    for found in pool.map(draw_block, blocks, chunk=1):
        new = [smiles for smiles in found if smiles not in seen]
        seen.update(new)
        yield from new
        window.append(len(new))
        if len(window) == WINDOW_BLOCKS and sum(window) < RARE:
            return


def draw_block(block: Block) -> list[str]:
    """Distinct canonical SMILES of one block of draws, in the order of their first appearance."""
    rng = random.Random(block.seed)
    weights = [SIZE_WEIGHTS[size - 1] for size in block.sizes]
    drawn = (draw_graph(size, block.mix, rng) for size in rng.choices(block.sizes, weights, k=BLOCK_DRAWS))
    return list(dict.fromkeys(smiles for smiles in drawn if smiles))


def draw_graph(size: int, mix: Mix, rng: random.Random) -> str | None:
    """Canonical SMILES of a random molecule with `size` heavy atoms, or None if the draw is not acceptable."""
    from rdkit import Chem, rdBase

    mol, free = _random_tree(size, mix, rng)
    if mol.GetNumAtoms() < size:
        return None
    for _ in range(rng.randrange(4)):
        _close_ring(mol, free, rng)
    for _ in range(rng.randrange(3)):
        _raise_bond(mol, free, rng)
    with rdBase.BlockLogs():
        if Chem.SanitizeMol(mol, catchErrors=True) != Chem.SanitizeFlags.SANITIZE_NONE or is_unstable(mol):
            return None
    return str(Chem.MolToSmiles(mol))


def _random_tree(size: int, mix: Mix, rng: random.Random) -> tuple[RWMol, list[int]]:
    """A tree and the free valences of its atoms; it stays smaller where no atom could take the next one."""
    from rdkit import Chem

    mol, free = Chem.RWMol(), list[int]()
    for symbol in rng.choices(list(mix.elements), list(mix.elements.values()), k=size):
        open_atoms = [atom for atom, valence in enumerate(free) if valence]
        if free and not open_atoms:
            break
        free.append(VALENCE[symbol])
        atom = mol.AddAtom(Chem.Atom(symbol))
        if open_atoms:
            order = rng.choices(list(mix.orders), list(mix.orders.values()))[0]
            _bond(mol, free, rng.choice(open_atoms), atom, order)
    return mol, free


def _bond(mol: RWMol, free: list[int], i: int, j: int, order: int) -> None:
    from rdkit import Chem

    order = min(order, free[i], free[j])
    mol.AddBond(i, j, Chem.BondType.values[order])
    free[i] -= order
    free[j] -= order


def _close_ring(mol: RWMol, free: list[int], rng: random.Random) -> None:
    pairs = [(i, j) for i in range(len(free)) for j in range(i) if free[i] and free[j]]
    open_pairs = [pair for pair in pairs if mol.GetBondBetweenAtoms(*pair) is None]
    if open_pairs:
        _bond(mol, free, *rng.choice(open_pairs), 1)


def _raise_bond(mol: RWMol, free: list[int], rng: random.Random) -> None:
    from rdkit import Chem

    bonds = [b for b in mol.GetBonds() if free[b.GetBeginAtomIdx()] and free[b.GetEndAtomIdx()]]
    if bonds:
        bond = rng.choice(bonds)
        bond.SetBondType(Chem.BondType.values[int(bond.GetBondType()) + 1])
        free[bond.GetBeginAtomIdx()] -= 1
        free[bond.GetEndAtomIdx()] -= 1


@cache
def _pattern(smarts: str) -> Mol:
    from rdkit import Chem

    return Chem.MolFromSmarts(smarts)


def is_unstable(mol: Mol) -> bool:
    """Whether a sanitised molecule has a group that chemists do not put in a bottle."""
    if any(mol.HasSubstructMatch(_pattern(smarts)) for smarts in UNSTABLE_GROUPS):
        return True
    chains = {frozenset(match) for match in mol.GetSubstructMatches(_pattern(HETERO_CHAIN))}
    aromatic = {frozenset(match) for match in mol.GetSubstructMatches(_pattern(AROMATIC_HETERO_CHAIN))}
    return bool(chains - aromatic)


# --- positions ------------------------------------------------------------------------------------------


def build_conformers(smiles: str, recipe: MoleculeRecipe) -> list[Structure]:
    """Legible ones among the first `recipe.conformers` MMFF94 minima of a molecule, by rising energy; perhaps none."""
    from rdkit import Chem

    seed = random.Random(f"{recipe.seed}:{smiles}").getrandbits(31)
    try:
        mol, minima = embed(Chem.MolFromSmiles(smiles), seed=seed, conformers=recipe.conformers)
    except InputError:  # too strained for a 3D form: the graph is no molecule
        return []
    built = [
        from_rdkit(
            mol,
            id=smiles,
            conformer=minimum.conformer,
            properties={"smiles": smiles, "energy_kcal_mol": round(minimum.energy, 4)},
        )
        for minimum in minima
    ]
    return [
        replace(conformer, properties={**conformer.properties, "conformer": index})
        for index, conformer in enumerate(filter(is_legible, built))
    ]


def is_legible(molecule: Structure) -> bool:
    """Whether its bonds can be read back from atoms and positions alone, by EDM's lengths and by RDKit.

    A generator learns nothing but atoms and positions. What cannot be read back, about one conformer in eight (a bond
    of MMFF94 outside EDM's lengths, say), it would learn to make and everyone would count as wrong.
    """
    from polydit.molgen.evaluate.molecules import assess_molecule

    row = assess_molecule(molecule)
    return row.stable and row.valid and row.rdkit_valid and row.connected
