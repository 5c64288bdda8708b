"""What a user names on the command line, as structures: files, folders and run folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

from polydit.core.errors import InputError
from polydit.core.jobs.run_record import read_run
from polydit.molgen.data.readers import read_structures
from polydit.molgen.data.structure import Kind, Rejected, Structure

# An item of a run is stored in every format that was asked for; it is read once, from the most precise of
# them.
_BY_PRECISION = (".extxyz", ".cif", ".sdf", ".xyz")
_SMILES_FILES = {".smi", ".smiles"}


def read_inputs(
    paths: Iterable[Path], *, kind: Kind | None = None, limit: int | None = None
) -> Iterator[Structure | Rejected]:
    """Structures of files, folders and run folders in their order.

    Args:
        paths: Of a run folder only the items are read; an item that failed there is Rejected.
        kind: Leave out the other kind; None reads both.
        limit: At most this many, rejected ones included; None is all.

    Raises:
        InputError: A file is missing or of no known format.
    """
    return islice((entry for path in paths for entry in _read_path(path, kind)), limit)


def read_training(paths: Iterable[Path]) -> Iterator[Structure | Rejected | str]:
    """A training set for novelty: as `read_inputs`, but a file of SMILES stays text, without coordinates."""
    for path in paths:
        if path.suffix.lower() in _SMILES_FILES:
            yield from _smiles_lines(path)
        else:
            yield from _read_path(path, None)


def _smiles_lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as handle:
        for line in handle:
            if fields := line.split(maxsplit=1):
                yield fields[0]


def _read_path(path: Path, kind: Kind | None) -> Iterator[Structure | Rejected]:
    if not (path / "run.json").is_file():
        yield from read_structures(path, kind=kind)
        return
    for entry in _read_run_items(path):
        if isinstance(entry, Rejected) or kind in (None, entry.kind):
            yield entry


def _read_run_items(folder: Path) -> Iterator[Structure | Rejected]:
    run = read_run(folder)
    for record in run.failed():
        reason = record["error"]["message"] if "error" in record else "no reason recorded"
        yield Rejected(f"{folder}:{record['id']}", f"it failed in the run: {reason}")
    for item_id, files in groupby(run.files(), key=lambda file: file[0]["id"]):
        yield from _read_item(item_id, [path for _, path in files], f"{folder}:{item_id}")


def _read_item(item_id: str, paths: Sequence[Path], where: str) -> Iterator[Structure | Rejected]:
    known = [path for path in paths if path.suffix in _BY_PRECISION]
    if not known:
        yield Rejected(where, "the run stored no structure of it")
        return
    try:
        for entry in read_structures(min(known, key=lambda path: _BY_PRECISION.index(path.suffix))):
            yield replace(entry, id=item_id) if isinstance(entry, Structure) else entry
    except InputError as error:
        yield Rejected(where, error.problem)
