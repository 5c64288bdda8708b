"""`molgen data`: make and inspect data sets."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from polydit.core.cli.options import (
    config_option,
    limit_option,
    out_option,
    output_options,
    overwrite_option,
    seed_option,
    workers_option,
)
from polydit.core.cli.output import Output
from polydit.molgen.data.recipe import MAX_HEAVY_ATOMS, CrystalRecipe, MoleculeRecipe

if TYPE_CHECKING:
    from polydit.molgen.data.structure import Kind, Structure

_MOLECULES, _CRYSTALS = MoleculeRecipe(), CrystalRecipe()
_NOTE_EVERY = 1000  # structures


@click.group()
def data() -> None:
    """Make and inspect data sets."""


@data.command()
@out_option(help="Folder for molecules.sdf, crystals.csv and data.json.", metavar="DIR")
@overwrite_option(help="Replace what is there.")
@config_option
@click.option(
    "--kind", type=click.Choice(["molecule", "crystal", "both"]), default="both", help="What to make."
)
@click.option(
    "--max-heavy-atoms", type=click.IntRange(1, MAX_HEAVY_ATOMS), default=_MOLECULES.max_heavy_atoms,
    help="Largest molecules, hydrogens not counted.",
)  # fmt: skip
@click.option(
    "--num", type=click.IntRange(min=0), default=_MOLECULES.num, show_default="all that are found",
    help="Number of distinct molecules, mixed as in QM9.",
)  # fmt: skip
@click.option(
    "--conformers", type=click.IntRange(min=1), default=_MOLECULES.conformers,
    help="Most conformers of one molecule.",
)  # fmt: skip
@click.option(
    "--estimated", is_flag=True, default=_CRYSTALS.estimated,
    help="Also crystals whose lattice constants are estimated from ionic radii.",
)  # fmt: skip
@seed_option(default=_MOLECULES.seed)
@workers_option
@output_options
def make(
    out: Path,
    overwrite: bool,
    kind: str,
    max_heavy_atoms: int,
    num: int | None,
    conformers: int,
    estimated: bool,
    seed: int,
    workers: int,
    output: Output,
) -> None:
    """Generate a data set offline: organic molecules and prototype crystals.

    Molecules are random graphs of C, N, O and F with ETKDG + MMFF94 geometries. Crystals are the elements and
    the compounds of ten prototypes with lattice constants from the literature.

    \b
    molgen data make --out data/ --conformers 3 --workers 4
    """
    from polydit.molgen.data.make import make_data

    molecules = MoleculeRecipe(max_heavy_atoms=max_heavy_atoms, num=num, conformers=conformers, seed=seed)
    summary = make_data(
        out,
        molecules=molecules if kind != "crystal" else None,
        crystals=CrystalRecipe(estimated=estimated) if kind != "molecule" else None,
        workers=workers,
        overwrite=overwrite,
        watch=_count_aloud(output),
    )
    lines = [
        f"{summary[name]['structures']} {what}"
        for name, what in (("molecules", "conformers of molecules"), ("crystals", "crystals"))
        if name in summary
    ]
    output.summary({"out": str(out), **summary}, *lines, f"data: {out}")


def _count_aloud(output: Output) -> Callable[[Structure], None]:
    """Says now and then how far it is; how many there will be is not known before."""
    numbers = count(1)

    def watch(structure: Structure) -> None:
        if (number := next(numbers)) % _NOTE_EVERY == 0:
            output.note(f"{number} structures")

    return watch


@data.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--kind", type=click.Choice(["auto", "molecule", "crystal"]), default="auto", help="What to look at."
)
@click.option(
    "--show-rejected", type=click.IntRange(min=0), default=20, help="How many rejected rows to name."
)
@limit_option(help="At most this many structures and rejected rows.")
@output_options
def inspect(
    paths: tuple[Path, ...],
    kind: Literal["auto", "molecule", "crystal"],
    show_rejected: int,
    limit: int | None,
    output: Output,
) -> None:
    """Show what is in PATHS: counts, sizes, elements, space groups, and what was rejected and why.

    PATHS are files or folders: SDF, SMILES, XYZ, extxyz, CIF, POSCAR, CSV of CIFs or SMILES, npz, zip, tar,
    QM9's gdb9.sdf or dsgdb9nsd files.

    \b
    molgen data inspect gdb9.sdf
    molgen data inspect --json mp_20/train.csv
    """
    from polydit.molgen.data.inspect import Inspection
    from polydit.molgen.data.readers import read_structures

    wanted: Kind | None = None if kind == "auto" else kind
    records = chain.from_iterable(read_structures(path, kind=wanted) for path in paths)
    inspection = Inspection(show_rejected=show_rejected).add_all(islice(records, limit))
    output.summary(inspection.to_json(), *inspection.lines())
