"""Structures from any file that chemists and crystallographers keep them in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

from polydit.core.errors import InputError
from polydit.molgen.data.readers.archives import read_tar, read_zip
from polydit.molgen.data.readers.cif import read_cif
from polydit.molgen.data.readers.csvs import read_csv
from polydit.molgen.data.readers.npz import read_npz
from polydit.molgen.data.readers.poscar import read_poscar
from polydit.molgen.data.readers.qm9 import is_dsgdb9nsd, is_gdb9, read_gdb9, without_uncharacterized
from polydit.molgen.data.readers.sdf import read_sdf
from polydit.molgen.data.readers.smiles import read_smiles
from polydit.molgen.data.readers.text import Reader, Records, open_text, rejected
from polydit.molgen.data.readers.xyz import read_xyz
from polydit.molgen.data.structure import Kind, Rejected, Structure

__all__ = ["FORMATS", "read_structures"]

TEXT_READERS: dict[str, Reader] = {
    ".sdf": read_sdf,
    ".mol": read_sdf,
    ".smi": read_smiles,
    ".smiles": read_smiles,
    ".xyz": read_xyz,
    ".extxyz": read_xyz,
    ".cif": read_cif,
    ".vasp": read_poscar,
    ".poscar": read_poscar,
    ".csv": read_csv,
}
FORMATS = "sdf, mol, smi, xyz, extxyz, cif, POSCAR, csv with a column cif or smiles, npz, zip, tar, a folder of these"

# The same sample written in several formats is read once, from the format that says most.
_SAME_SAMPLE = (".extxyz", ".cif", ".sdf", ".xyz")
_SNIFFED = (  # for files whose name says nothing
    (re.compile(r"(\s*#.*\n)*\s*data_"), read_cif),
    (re.compile(r"(.*\n){3}.*V[23]000"), read_sdf),
    (re.compile(r"\s*\d+\s*\n"), read_xyz),
)


def read_structures(path: Path, *, kind: Kind | None = None) -> Iterator[Structure | Rejected]:
    """Structures of a file or of all files below a folder, in the order of their names.

    Rows are read as they are asked for. What cannot become a structure is yielded as `Rejected` and the rest goes on;
    inside a folder that holds for whole files too, and files of unknown formats are left out.

    Args:
        path: File or folder, see `FORMATS`.
        kind: Only molecules or only crystals; the others are left out.

    Raises:
        InputError: The path does not exist, or the file is empty, damaged or of an unknown format.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("there is no such file or folder", where=str(path))
    records = _read_folder(path) if path.is_dir() else _read_file(path)
    for record in records:
        if kind is None or isinstance(record, Rejected) or record.kind == kind:
            yield record


def _read_folder(folder: Path) -> Records:
    paths = _once_per_sample(sorted(path for path in folder.rglob("*") if path.is_file() and _is_known(path)))
    if not paths:
        raise InputError("the folder has no structure files", where=str(folder), expected=FORMATS)
    for path in paths:
        try:
            yield from _read_file(path)
        except InputError as error:
            yield rejected(str(path), error)


def _once_per_sample(paths: list[Path]) -> list[Path]:
    rank = {suffix: index for index, suffix in enumerate(_SAME_SAMPLE)}
    best: dict[Path, int] = {}
    for path in paths:
        if path.suffix in rank:
            stem = path.with_suffix("")
            best[stem] = min(best.get(stem, len(rank)), rank[path.suffix])
    return [
        path for path in paths if path.suffix not in rank or rank[path.suffix] == best[path.with_suffix("")]
    ]


def _read_file(path: Path) -> Records:
    name = path.name.lower()
    if is_gdb9(path):
        yield from read_gdb9(path)
    elif name.endswith(".npz"):
        yield from read_npz(path)
    elif name.endswith(".zip"):
        yield from read_zip(path, find_reader)
    elif _is_tar(name):
        yield from without_uncharacterized(read_tar(path, find_reader), path.parent)
    else:
        with open_text(path) as text:
            reader = find_reader(name) or _sniff(path)
            records = reader(text)
            yield from without_uncharacterized(records, path.parent) if is_dsgdb9nsd(path.name) else records


def _is_known(path: Path) -> bool:
    name = path.name.lower()
    return find_reader(name) is not None or name.endswith((".npz", ".zip")) or _is_tar(name)


def _is_tar(name: str) -> bool:
    return name.endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


@lru_cache(maxsize=1024)
def find_reader(name: str) -> Reader | None:
    """Reader of a text format by the file's name, `.gz` left aside; None for an unknown one."""
    file = PurePosixPath(name.lower().removesuffix(".gz"))
    if file.name.startswith(("poscar", "contcar")) and file.suffix not in TEXT_READERS:
        return read_poscar
    return TEXT_READERS.get(file.suffix)


def _sniff(path: Path) -> Reader:
    with open_text(path) as text:
        head = "".join(line for _, line in zip(range(40), text.lines, strict=False))
    for pattern, reader in _SNIFFED:
        if pattern.match(head):
            return reader
    raise InputError("its format is unknown", where=str(path), expected=FORMATS)
