"""Parquet tables into arrays, without a loop over rows, and with every size checked before memory is taken."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polydit.core.errors import InputError
from polydit.robopolicy.data.features import Feature

MAX_TABLE_BYTES = 1 << 32  # of the columns that are read from one file; LeRobot starts a new file at 100 MB
_ROW_BYTES = 8  # nothing that is read as a number is wider

_KINDS: Mapping[str, Callable[[pa.DataType], bool]] = {
    "f": lambda kind: pa.types.is_floating(kind) or pa.types.is_integer(kind),
    "i": pa.types.is_integer,
    "u": pa.types.is_integer,
    "b": pa.types.is_boolean,
}


_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


@contextmanager
def open_table(path: Path) -> Iterator[pq.ParquetFile]:
    """A parquet file, its header read.

    Raises:
        InputError: It is missing, damaged or no parquet file.
    """
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: text that is no UTF-8
        raise InputError(f"cannot be read: {str(error).partition(chr(10))[0]}", where=str(path)) from error


def read_columns(path: Path, names: Sequence[str], row_groups: Sequence[int] | None = None) -> pa.Table:
    """Some columns of a parquet file.

    Args:
        path: The file.
        names: Columns, all of which must exist.
        row_groups: Parts of the file; None = all.

    Raises:
        InputError: It cannot be read, lacks a column, or would fill the memory.
    """
    with open_table(path) as file:
        missing = [name for name in names if name not in file.schema_arrow.names]
        if missing:
            known = ", ".join(file.schema_arrow.names[:20])
            raise InputError(f"has no column {missing[0]!r}", where=str(path), expected=f"one of {known}")
        groups = range(file.metadata.num_row_groups) if row_groups is None else row_groups
        _check_size(file, names, groups, path)
        return file.read_row_groups(list(groups), columns=list(names), use_threads=False)


def _check_size(file: pq.ParquetFile, names: Sequence[str], groups: Sequence[int], path: Path) -> None:
    """Declared bytes, and rows times row size: a run of equal values takes no bytes in the file."""
    numbers = sum(_width(file.schema_arrow.field(name).type) for name in names)
    rows = size = 0
    for index in groups:
        group = file.metadata.row_group(index)
        rows += group.num_rows
        columns = (group.column(column) for column in range(group.num_columns))
        size += sum(c.total_uncompressed_size for c in columns if _belongs(c.path_in_schema, names))
    if max(size, rows * numbers * _ROW_BYTES) > MAX_TABLE_BYTES:
        problem = f"{rows} rows of {numbers} numbers, {size / 2**30:.1f} GiB"
        raise InputError(problem, where=str(path), expected=f"<= {MAX_TABLE_BYTES >> 30} GiB in one file")


def _belongs(column: str, names: Sequence[str]) -> bool:
    """Whether a column of the file (nested ones are called "name.list.element") is one of `names`."""
    return any(column == name or column.startswith(f"{name}.") for name in names)


def _width(kind: pa.DataType) -> int:
    """Numbers in a row as far as the type says it."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _width(kind.value_type)
    return kind.num_fields or 1


def column_values(column: pa.ChunkedArray, feature: Feature, *, where: str) -> np.ndarray:
    """A column as an array of the feature's dtype, one row per frame.

    Args:
        column: The column.
        feature: What info.json says about it.
        where: File and key, for messages.

    Returns:
        (t, *shape), or (t,) for the shape (1,).

    Raises:
        InputError: Its type or shape is another one, or a row is empty.
    """
    array = _one_array(column)
    count, lengths = len(array), []
    for depth in range(8):
        if array.null_count:
            row = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
            at = f", row {row}" if depth == 0 else ""
            raise InputError("a value is missing", where=where + at)
        if not any(is_one(array.type) for is_one in _LISTS):
            break
        lengths.append(_length(array, feature, where))
        array = array.flatten()
    found = tuple(lengths) or (1,)
    if math.prod(found) != math.prod(feature.shape) or (count and len(array) != count * math.prod(found)):
        problem = f"the column has the shape {list(found)} and info.json says {list(feature.shape)}"
        raise InputError(problem, where=where)
    return _values(array, feature, where).reshape(count, *feature.row_shape)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _length(array: pa.Array, feature: Feature, where: str) -> int:
    """Length of the lists, which must be the same in all rows."""
    if pa.types.is_fixed_size_list(array.type):
        return int(array.type.list_size)
    lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
    if len(lengths) > 1:
        problem = f"rows have {lengths[0]} to {lengths[-1]} numbers and info.json says {list(feature.shape)}"
        raise InputError(problem, where=where)
    return int(lengths[0]) if len(lengths) else feature.shape[-1]


def _values(array: pa.Array, feature: Feature, where: str) -> np.ndarray:
    if feature.dtype == "string":
        if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
            raise InputError(f"the column holds {array.type} and info.json says string", where=where)
        try:
            return np.array(array.to_pylist(), dtype=str)
        except UnicodeDecodeError as error:
            raise InputError("the text is no UTF-8", where=where) from error
    kind = np.dtype(feature.dtype)
    if not _KINDS[kind.kind](array.type):
        raise InputError(f"the column holds {array.type} and info.json says {feature.dtype}", where=where)
    return array.to_numpy(zero_copy_only=False).astype(kind, copy=False)


def arrow_type(feature: Feature) -> pa.DataType:
    """The type of a feature's column in LeRobot's tables."""
    if feature.dtype == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    value = {"string": pa.string(), "bool": pa.bool_()}.get(feature.dtype) or pa.from_numpy_dtype(
        feature.dtype
    )
    if feature.is_scalar:
        return value
    if len(feature.shape) == 1:
        return pa.list_(value, feature.shape[0])
    for _ in feature.shape:
        value = pa.list_(value)
    return value


def row_schema(features: Mapping[str, Feature]) -> pa.Schema:
    """The columns of LeRobot's tables; videos have none.

    The metadata repeats the features in the words of Hugging Face's `datasets`: without them LeRobot v2.1 and the hub's
    viewer take a picture for a table of bytes and path. "Sequence" is the word that all versions of `datasets` know.
    """
    kept = {key: feature for key, feature in features.items() if feature.dtype != "video"}
    words = {"info": {"features": {key: _in_words_of_datasets(feature) for key, feature in kept.items()}}}
    metadata = {"huggingface": json.dumps(words)}
    return pa.schema([(key, arrow_type(feature)) for key, feature in kept.items()], metadata=metadata)


def _in_words_of_datasets(feature: Feature) -> dict[str, Any]:
    value = {"dtype": feature.dtype, "_type": "Value"}
    if feature.dtype == "image":
        return {"_type": "Image"}
    if feature.is_scalar:
        return value
    if len(feature.shape) == 1:
        return {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
    shape = list(feature.shape)
    return {"shape": shape, "dtype": feature.dtype, "_type": f"Array{len(shape)}D"}


def arrow_column(values: np.ndarray, feature: Feature) -> pa.Array:
    """Rows as a column of that type."""
    kind, rows = arrow_type(feature), values.reshape(len(values), -1)
    flat = pa.array(rows.reshape(-1), type=_innermost(kind))
    if feature.is_scalar:
        return flat
    if len(feature.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(flat, feature.shape[0])
    for length in reversed(feature.shape):
        flat = pa.ListArray.from_arrays(np.arange(0, len(flat) + 1, length, dtype=np.int32), flat)
    return flat


def _innermost(kind: pa.DataType) -> pa.DataType:
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind
