"""The bytes of one cloud in PLY, GLB, OBJ, XYZ or NPY. Where it came from travels with it, where there is room."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32

from polydit.core.errors import InputError
from polydit.pointgen.cloud import Cloud
from polydit.pointgen.data.pc15k import npy_bytes

Format = Literal["ply", "glb", "obj", "xyz", "npy"]
FORMATS: tuple[Format, ...] = get_args(Format)
_DIGITS = 9  # significant figures: a float32 reads back as it was

_REFUSED = {"stl": "STL holds triangles, and a cloud has none"}

_Provenance = Mapping[str, str]


def render(cloud: Cloud, format: str, provenance: Mapping[str, str] = {}) -> bytes:
    """The file of a cloud.

    Args:
        cloud: The points; its category is stored too, if it is known.
        format: "ply" (binary), "glb", "obj", "xyz" or "npy".
        provenance: What else the file says of itself: remarks in PLY and OBJ, extras of the asset in GLB. NPY has no
            place for it, and most readers of XYZ take no remarks.

    Raises:
        InputError: The format is another one; STL has triangles only.
    """
    if format not in _WRITERS:
        raise InputError(
            _REFUSED.get(format, f"{format!r} is not written"), where="--format", expected=", ".join(FORMATS)
        )
    told = {"category": cloud.category} if cloud.category else {}
    plain = {_word(key): " ".join(str(value).split()) for key, value in {**told, **provenance}.items()}
    return _WRITERS[format](cloud.points, plain)


def _word(key: str) -> str:
    """A key that our readers find again."""
    return "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in key)


def _ply(points: Float32[np.ndarray, "n 3"], provenance: _Provenance) -> bytes:
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        *(f"comment {line}" for line in _lines(provenance)),
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        "end_header",
    ]
    return ("\n".join(lines) + "\n").encode() + points.astype("<f4").tobytes()


def _lines(provenance: _Provenance) -> list[str]:
    return [f"{key}: {value}" for key, value in provenance.items()]


def _glb(points: Float32[np.ndarray, "n 3"], provenance: _Provenance) -> bytes:
    low, high = (edge.astype(float).tolist() for edge in (points.min(0), points.max(0)))
    position = {
        "bufferView": 0,
        "componentType": 5126,
        "count": len(points),
        "type": "VEC3",
        "min": low,
        "max": high,
    }
    described = {
        "asset": {"version": "2.0", "generator": "polydit pointgen", "extras": dict(provenance)},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "mode": 0}]}],  # points
        "accessors": [position],
        "bufferViews": [{"buffer": 0, "byteLength": points.nbytes, "target": 34962}],
        "buffers": [{"byteLength": points.nbytes}],
    }
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", points.nbytes, b"BIN\x00") + points.astype("<f4").tobytes()
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def _obj(points: Float32[np.ndarray, "n 3"], provenance: _Provenance) -> bytes:
    return "".join(f"# {line}\n" for line in _lines(provenance)).encode() + _rows(points, "v ")


def _xyz(points: Float32[np.ndarray, "n 3"], provenance: _Provenance) -> bytes:
    return _rows(points, "")


def _rows(points: Float32[np.ndarray, "n 3"], start: str) -> bytes:
    row = start + " ".join([f"%.{_DIGITS}g"] * 3) + "\n"
    return "".join(row % tuple(point) for point in points.tolist()).encode()


def _npy(points: Float32[np.ndarray, "n 3"], provenance: _Provenance) -> bytes:
    return npy_bytes(points)


_WRITERS: dict[str, Callable[[np.ndarray, _Provenance], bytes]] = {
    "ply": _ply,
    "glb": _glb,
    "obj": _obj,
    "xyz": _xyz,
    "npy": _npy,
}
