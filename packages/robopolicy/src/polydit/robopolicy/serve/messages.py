"""Messages between a robot and a policy's server: msgpack maps whose arrays are typed bytes.

The other side is not trusted: a message is one map of bounded parts, an array's type is one of a few, and its shape
must account for exactly the bytes that came before anything is made of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from polydit.core.errors import InputError

PROTOCOL = 1
MAX_MESSAGE = 32 << 20  # bytes; six cameras of 1280 × 720 take 16 MiB
DTYPES = {
    "uint8": "|u1",
    "uint16": "<u2",
    "int32": "<i4",
    "int64": "<i8",
    "float32": "<f4",
    "float64": "<f8",
}
_ARRAY = "__array__"
_MAX_AXES, _MAX_ENTRIES, _MAX_TEXT = 4, 1024, 1 << 16

Message = Mapping[str, Any]


def pack(message: Message) -> bytes:
    """A message as bytes.

    Args:
        message: Texts, numbers, lists, maps and numpy arrays.

    Raises:
        InputError: A value is of another kind, or an array of a type that does not travel.
    """
    import msgpack

    try:
        return bytes(msgpack.packb(message, default=_described))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"the message cannot be sent ({error})") from error


def unpack(data: bytes | str) -> dict[str, Any]:
    """A message from bytes; its arrays are new and writable.

    Raises:
        InputError: It is no message, or an array in it is not what it says; `where` is the array's name.
    """
    import msgpack

    if isinstance(data, str):
        raise InputError("the message is a text frame", expected="a binary frame that holds a msgpack map")
    try:
        # Containers are made at their stated length, so the length is bounded however long the message is.
        message = msgpack.unpackb(
            data,
            max_array_len=_MAX_ENTRIES,
            max_map_len=_MAX_ENTRIES,
            max_str_len=_MAX_TEXT,
            max_bin_len=len(data),
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError) as error:  # msgpack's own errors are kinds of ValueError
        raise InputError(f"the message is damaged ({error})", expected="a msgpack map") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise InputError("the message has no type", expected='a msgpack map with "type"')
    return {str(key): _restored(value, str(key)) for key, value in message.items()}


def _described(value: Any) -> dict[str, Any]:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{type(value).__name__} does not travel")
    if value.dtype.name not in DTYPES:
        raise TypeError(f"arrays of {value.dtype.name} do not travel, only {', '.join(DTYPES)}")
    wire = value.astype(DTYPES[value.dtype.name], copy=False)
    return {_ARRAY: value.dtype.name, "shape": list(value.shape), "data": wire.tobytes()}


def _restored(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        return value
    if _ARRAY in value:
        return _array(value, name)
    return {str(key): _restored(item, str(key)) for key, item in value.items()}


def _array(value: dict[Any, Any], name: str) -> np.ndarray:
    """The array of one description, after all of it was checked."""
    dtype, shape, data = value[_ARRAY], value.get("shape"), value.get("data")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InputError(f"the type {dtype!r} is not allowed", where=name, expected=", ".join(DTYPES))
    if not isinstance(shape, list) or len(shape) > _MAX_AXES or not all(map(_is_size, shape)):
        raise InputError(
            f"{shape!r} is no shape", where=name, expected=f"a list of at most {_MAX_AXES} whole numbers"
        )
    if not isinstance(data, bytes):
        raise InputError("the array has no data", where=name, expected="bytes")
    kind = np.dtype(DTYPES[dtype])
    if math.prod(shape) * kind.itemsize != len(data):
        problem = f"{len(data)} bytes are no array of {dtype} with the shape {tuple(shape)}"
        raise InputError(problem, where=name, expected=f"{math.prod(shape) * kind.itemsize} bytes")
    return np.frombuffer(data, dtype=kind).reshape(shape).astype(dtype)


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0
