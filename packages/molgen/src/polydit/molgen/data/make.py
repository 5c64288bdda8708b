"""`molgen data make`: a data set that anyone can make again without a network."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO

from polydit.core.datasets.folder import locked_folder
from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file, naming_write_errors, remove_leftovers
from polydit.molgen.data.generate_crystals import generate_crystals
from polydit.molgen.data.generate_molecules import generate_molecules
from polydit.molgen.data.recipe import CrystalRecipe, MoleculeRecipe
from polydit.molgen.data.structure import Structure
from polydit.molgen.data.writers import render

MOLECULES, CRYSTALS, SUMMARY = "molecules.sdf", "crystals.csv", "data.json"
CRYSTAL_COLUMNS = ("material_id", "cif", "formula", "spacegroup", "prototype", "estimated")
_PACKAGES = ("polydit-molgen", "rdkit", "ase", "pymatgen-core")


def make_data(
    out: Path,
    *,
    molecules: MoleculeRecipe | None,
    crystals: CrystalRecipe | None,
    workers: int = 1,
    overwrite: bool = False,
    watch: Callable[[Structure], None] = lambda structure: None,
) -> dict[str, Any]:
    """Write molecules.sdf, crystals.csv (CDVAE's columns) and data.json.

    Records are written as they are made, under temporary names; the files take their places together, data.json last.

    Args:
        out: Folder; made if it is missing.
        molecules: Molecules to make, None for none.
        crystals: Crystals to make, None for none.
        workers: Processes; the result does not depend on it.
        overwrite: Replace what an earlier call made.
        watch: Called with each structure when it is written.

    Returns:
        What data.json holds: recipes, counts and versions.

    Raises:
        InputError: There is an earlier result and `overwrite` is not set, another call works in the folder, the folder
            cannot be written, or too few molecules exist.
        PolyditError: Writing failed on the way.
    """
    names = [SUMMARY, *([MOLECULES] if molecules else []), *([CRYSTALS] if crystals else [])]
    with _folder(out, names, overwrite), naming_write_errors(out), ExitStack() as files:
        handles = {name: files.enter_context(atomic_file(out / name)) for name in names}
        summary: dict[str, Any] = {"versions": {package: version(package) for package in _PACKAGES}}
        if crystals:
            made = _watched(generate_crystals(estimated=crystals.estimated), watch)
            summary["crystals"] = {"recipe": asdict(crystals), **write_crystals(handles[CRYSTALS], made)}
        if molecules:
            made = _watched(generate_molecules(molecules, workers=workers), watch)
            summary["molecules"] = {"recipe": asdict(molecules), **write_molecules(handles[MOLECULES], made)}
        handles[SUMMARY].write(f"{json.dumps(summary, indent=1)}\n".encode())
    return summary


@contextmanager
def _folder(out: Path, names: list[str], overwrite: bool) -> Iterator[None]:
    """The folder, made and locked, without an earlier result and without what a killed call left."""
    with locked_folder(out):
        there = [name for name in names if (out / name).exists()]
        if there and not overwrite:
            raise InputError(
                f"{there[0]} is there already", where=f"--out {out}", hint="Replace it with --overwrite"
            )
        remove_leftovers(out, names)
        yield


def _watched(structures: Iterable[Structure], watch: Callable[[Structure], None]) -> Iterator[Structure]:
    for structure in structures:
        yield structure
        watch(structure)


def write_molecules(handle: BinaryIO, structures: Iterable[Structure]) -> dict[str, Any]:
    """Write SDF records as they come; returns counts."""
    heavy_atoms: Counter[int] = Counter()
    conformers = 0
    for structure in structures:
        handle.write(render(structure, "sdf").encode())
        conformers += 1
        heavy_atoms[structure.heavy_atoms] += structure.properties["conformer"] == 0
    counts = {str(size): count for size, count in sorted(heavy_atoms.items())}
    return {"molecules": heavy_atoms.total(), "structures": conformers, "by_heavy_atoms": counts}


def write_crystals(handle: BinaryIO, structures: Iterable[Structure]) -> dict[str, Any]:
    """Write rows of a CSV of CIFs as they come; returns counts."""
    prototypes: Counter[str] = Counter()
    estimated = 0
    handle.write(_csv_line(CRYSTAL_COLUMNS))
    for crystal in structures:
        told = crystal.properties
        row = (told["formula"], crystal.spacegroup, told["prototype"], told["estimated"])
        handle.write(_csv_line((crystal.id, render(crystal, "cif"), *row)))
        prototypes[str(told["prototype"])] += 1
        estimated += int(told["estimated"])
    return {"structures": prototypes.total(), "estimated": estimated, "by_prototype": dict(prototypes)}


def _csv_line(cells: Iterable[object]) -> bytes:
    line = StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue().encode()
