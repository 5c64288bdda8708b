"""All structures of a run in one file per format, beside the single ones."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from polydit.core.jobs import RunFolder

if TYPE_CHECKING:
    from polydit.molgen.data.writers import Format
    from polydit.molgen.sampling_plan import Kind


def joined_name(kind: Kind, format: Format) -> str:
    """Name of the file that holds all structures of a run in one format."""
    return f"{kind}s.{format}"


def write_joined(folder: RunFolder, kind: Kind, formats: Sequence[Format]) -> list[str]:
    """Writes all finished structures into one file per format, in the order of the run; returns the names.

    One structure at a time passes through memory. Without any structure no file is written.
    """
    if not folder.manifest.count("ok"):
        return []
    names = [joined_name(kind, format) for format in formats]
    for name, format in zip(names, formats, strict=True):
        folder.write_product(name, _records(folder, format))
    return names


def _records(folder: RunFolder, format: Format) -> Iterator[bytes]:
    for record in folder.manifest.records("ok"):
        for output in record["outputs"]:
            if output["path"].endswith(f".{format}"):
                content = (folder.path / output["path"]).read_bytes()
                yield _named_block(content, record["id"]) if format == "cif" else content


def _named_block(cif: bytes, item_id: str) -> bytes:
    """A CIF whose data block is named after the item: readers keep one block of each name."""
    return re.sub(rb"(?m)^data_\S*", b"data_" + item_id.encode(), cif, count=1)
