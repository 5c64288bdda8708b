"""What a file says of itself before it is read: too many points, or fewer than it promises, are found here.

Libraries that read meshes take memory for whatever a header announces, and pass over an end that is missing.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from polydit.core.errors import InputError

MOST_POINTS = 10_000_000  # vertices or faces of one shape
MOST_BYTES = 2 << 30

_HEADER_BYTES = 1 << 16
_GLB_CHUNK = struct.Struct("<II")
_STL_HEAD, _STL_FACE = 84, 50  # bytes
_REMARK = re.compile(r"(?:comment|#)\s*([\w-]+):\s*(.*\S)\s*$")  # as our writers leave them
_REMARKS = 100  # lines


def check_size(path: Path) -> int:
    """Bytes of a file.

    Raises:
        InputError: It is empty, or larger than any shape is.
    """
    size = path.stat().st_size
    if not size:
        raise InputError("it is empty", where=str(path))
    if size > MOST_BYTES:
        raise InputError(f"it has {size:,} bytes", where=str(path), expected=f"at most {MOST_BYTES:,}")
    return size


def check_count(count: int, what: str, path: Path) -> None:
    """Refuses what would take too much memory.

    Raises:
        InputError: There are more than `MOST_POINTS`.
    """
    if not 0 <= count <= MOST_POINTS:
        raise InputError(f"it has {count:,} {what}", where=str(path), expected=f"at most {MOST_POINTS:,}")


def check_ply(path: Path) -> dict[str, str]:
    """Counts of a PLY; returns its remarks, such as `category`."""
    with path.open("rb") as handle:
        head = handle.read(_HEADER_BYTES)
        start = head.find(b"end_header")
        if not head.startswith(b"ply") or start < 0:
            raise InputError("its header is no PLY header, or cut off", where=str(path))
        lines = head[:start].decode("utf-8", "replace").splitlines()
        counts = {word[1]: _whole(word[2], path) for word in map(str.split, lines) if _is_element(word)}
        if "vertex" not in counts:
            raise InputError("it has no vertices", where=str(path))
        for name, count in counts.items():
            check_count(count, f"elements {name!r}", path)
        if any(line.split()[:2] == ["format", "ascii"] for line in lines):
            handle.seek(start)
            found = sum(1 for line in handle if line.strip()) - 1
            if found < sum(counts.values()):
                problem = f"it is cut off: {found} of {sum(counts.values())} rows are there"
                raise InputError(problem, where=str(path))
    return _remarks(lines)


def _is_element(words: list[str]) -> bool:
    return len(words) == 3 and words[0] == "element"


def check_off(path: Path) -> None:
    """Counts of an OFF, also in ModelNet's form, whose first line runs into the second."""
    with path.open("rb") as handle:
        rows = (line.partition(b"#")[0].strip() for line in handle)
        rows = (row for row in rows if row)
        first = next(rows, b"").decode("utf-8", "replace")
        if (match := re.match(r"\s*C?OFF\s*(.*)", first)) is None:
            raise InputError("its first line is not OFF", where=str(path))
        words = (match[1] or next(rows, b"").decode("utf-8", "replace")).split()
        if len(words) < 2:
            raise InputError("it has no line of counts, or is cut off", where=str(path))
        vertices, faces = _whole(words[0], path), _whole(words[1], path)
        check_count(vertices, "vertices", path)
        check_count(faces, "faces", path)
        if (found := sum(1 for _ in islice(rows, vertices + faces))) < vertices + faces:
            problem = f"it is cut off: {found} of {vertices + faces} rows are there"
            raise InputError(problem, where=str(path))


def check_stl(path: Path) -> None:
    """Counts of an STL, binary or text."""
    size = check_size(path)
    with path.open("rb") as handle:
        head = handle.read(_STL_HEAD)
        if len(head) == _STL_HEAD:
            (faces,) = struct.unpack("<I", head[80:])
            if size == _STL_HEAD + _STL_FACE * faces:
                return check_count(faces, "faces", path)
        if not head.lstrip().lower().startswith(b"solid") or b"\x00" in head:
            raise InputError("it is cut off, or no STL", where=str(path))
        handle.seek(0)
        faces, last = 0, b""
        for line in handle:
            faces += b"endfacet" in line
            last = line.strip() or last
        check_count(faces, "faces", path)
        if not last.lower().startswith(b"endsolid"):
            raise InputError("it is cut off: endsolid is missing", where=str(path))


def check_obj(path: Path) -> dict[str, str]:
    """Counts of an OBJ, which says no number before; a cut in the middle of its last line is found."""
    vertices, faces, last = 0, 0, b""
    remarks: list[str] = []
    with path.open("rb") as handle:
        for line in handle:
            vertices += line.startswith((b"v ", b"v\t"))
            faces += line.startswith((b"f ", b"f\t"))
            last = line.strip() or last
            if line.startswith(b"#") and len(remarks) < _REMARKS:
                remarks.append(line.decode("utf-8", "replace"))
    check_count(vertices, "vertices", path)
    check_count(faces, "faces", path)
    if not vertices:
        raise InputError("it has no vertices", where=str(path))
    words = last.split()
    if words[:1] in ([b"v"], [b"f"]) and len(words) < 4:
        raise InputError(f"its last line reads {last[:40].decode('utf-8', 'replace')!r}", where=str(path))
    return _remarks(remarks)


def check_glb(path: Path) -> dict[str, str]:
    """Lengths and counts of a GLB; returns what our writers leave in its extras."""
    size = check_size(path)
    with path.open("rb") as handle:
        head = handle.read(20)
        if len(head) < 20 or head[:4] != b"glTF":
            raise InputError("it is cut off, or no GLB", where=str(path))
        (total,) = struct.unpack("<I", head[8:12])
        length, kind = _GLB_CHUNK.unpack(head[12:20])
        if total > size or length + 20 > size:
            problem = f"it is cut off: {size:,} of {total:,} bytes are there"
            raise InputError(problem, where=str(path))
        if kind != 0x4E4F534A:  # "JSON"
            raise InputError("its first part is not the description", where=str(path))
        try:
            described = json.loads(handle.read(length))
            counts = [int(entry["count"]) for entry in described.get("accessors", [])]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError("its description is damaged", where=str(path)) from error
    for count in counts:
        check_count(count, "entries", path)
    return _extras(described)


def _extras(described: Mapping[str, Any]) -> dict[str, str]:
    asset = described.get("asset")
    extras = asset.get("extras") if isinstance(asset, dict) else None
    if not isinstance(extras, dict):
        return {}
    return {key: value for key, value in extras.items() if isinstance(value, str)}


def _remarks(lines: list[str]) -> dict[str, str]:
    matches = (_REMARK.match(line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def _whole(word: str, path: Path) -> int:
    try:
        return int(word)
    except ValueError:
        raise InputError(f"a count reads {word[:40]!r}", where=str(path)) from None
