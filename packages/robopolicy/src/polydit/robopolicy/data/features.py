"""What a data set's columns are: dtype, shape and names, as LeRobot's info.json states them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from polydit.core.errors import InputError
from polydit.robopolicy.episode import ACTION, IMAGES, STATE, Episode

NUMBERS = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
PICTURES = ("image", "video")
DTYPES = (*NUMBERS, "string", *PICTURES)

# Limits against absurd declarations: far above any robot, far below what would fill a memory.
MAX_FEATURES = 1024
MAX_VECTOR = 1 << 16  # numbers in a row of one feature
MAX_SIDE = 1 << 13  # pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One column.

    Args:
        dtype: One of `DTYPES`; pictures are "image" (PNG in the table) or "video" (mp4 beside it).
        shape: Numbers of a row; for pictures height, width and 3.
        names: What the numbers are, if the source says it.

    Raises:
        InputError: The dtype is unknown or the shape absurd.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise InputError(f"unknown dtype {self.dtype!r}", expected=", ".join(DTYPES))
        if not self.shape or len(self.shape) > 5 or not all(type(n) is int and n > 0 for n in self.shape):
            raise InputError(f"the shape {list(self.shape)} is impossible", expected="1..5 positive numbers")
        if self.is_picture:
            if len(self.shape) != 3 or self.shape[2] != 3 or max(self.shape) > MAX_SIDE:
                expected = f"height, width, 3, at most {MAX_SIDE} pixels a side"
                raise InputError(f"pictures of the shape {list(self.shape)}", expected=expected)
        elif math.prod(self.shape) > MAX_VECTOR:
            raise InputError(f"the shape {list(self.shape)} is absurd", expected=f"<= {MAX_VECTOR} numbers")

    @property
    def is_picture(self) -> bool:
        """Whether it is a camera."""
        return self.dtype in PICTURES

    @property
    def is_scalar(self) -> bool:
        """Whether a row is one number, kept as such in tables."""
        return self.shape == (1,)

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of a row in arrays: () for one number."""
        return () if self.is_scalar else self.shape

    def to_json(self) -> dict[str, Any]:
        """As info.json holds it."""
        names = list(self.names) if self.names else None
        return {"dtype": self.dtype, "shape": list(self.shape), "names": names}


# Columns that every LeRobot data set has besides its own.
INDEX: Mapping[str, Feature] = {
    "timestamp": Feature(dtype="float32", shape=(1,)),
    "frame_index": Feature(dtype="int64", shape=(1,)),
    "episode_index": Feature(dtype="int64", shape=(1,)),
    "index": Feature(dtype="int64", shape=(1,)),
    "task_index": Feature(dtype="int64", shape=(1,)),
}


def feature_from_json(entry: Any, *, where: str) -> Feature | str:
    """The feature, or why it is left out: a dtype that is not ours, a depth camera.

    Raises:
        InputError: The entry is no feature, or its shape is absurd.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("shape"), list) or "dtype" not in entry:
        raise InputError("not a feature", where=where, expected="dtype and shape")
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    if dtype not in DTYPES:
        return f"its dtype {dtype!r} is not read"
    if dtype in PICTURES:
        details = {**(entry.get("video_info") or {}), **(entry.get("info") or {})}
        if details.get("video.is_depth_map") or details.get("is_depth_map"):
            return "it is a depth camera"
        shape = _height_width_channels(shape, entry.get("names"))
        if len(shape) == 3 and shape[2] != 3:
            return f"its pictures have {shape[2]} channels"
    try:
        return Feature(dtype=dtype, shape=shape, names=_flat_names(entry.get("names")))
    except InputError as error:
        raise InputError(error.problem, where=where, expected=error.expected) from error


def _height_width_channels(shape: tuple[Any, ...], names: Any) -> tuple[Any, ...]:
    """Older data sets state channels first."""
    first = isinstance(names, list) and bool(names) and str(names[0]).startswith("channel")
    if len(shape) == 3 and (first or (not names and shape[0] in (1, 3) and shape[2] not in (1, 3))):
        return (shape[1], shape[2], shape[0])
    return shape


def _flat_names(names: Any) -> tuple[str, ...] | None:
    """Names are a list, or a table of lists such as {"motors": [...]}, or absent."""
    if isinstance(names, Mapping):
        lists = [value for value in names.values() if isinstance(value, list)]
        names = [name for value in lists for name in value]
    return tuple(str(name) for name in names) if isinstance(names, list) and names else None


def features_of(
    episode: Episode,
    *,
    pictures: str = "video",
    state_names: tuple[str, ...] | None = None,
    action_names: tuple[str, ...] | None = None,
) -> dict[str, Feature]:
    """The features that a data set of such episodes has.

    Args:
        episode: One of them.
        pictures: How to keep its pictures, "video" or "image".
        state_names: What the numbers of a state are.
        action_names: What the numbers of an action are.
    """
    features = {
        STATE: Feature(dtype="float32", shape=(episode.state.shape[1],), names=state_names),
        ACTION: Feature(dtype="float32", shape=(episode.action.shape[1],), names=action_names),
    }
    for camera, frames in episode.images.items():
        names = ("height", "width", "channels")
        features[IMAGES + camera] = Feature(dtype=pictures, shape=tuple(frames.shape), names=names)
    for key, rows in episode.extra.items():
        features[key] = Feature(dtype=_dtype_name(rows, key), shape=rows.shape[1:] or (1,))
    return features


def _dtype_name(rows: np.ndarray, key: str) -> str:
    name = "string" if rows.dtype.kind in "UO" else str(rows.dtype)
    if name not in DTYPES:
        raise InputError(f"{key} has the dtype {rows.dtype}", expected=", ".join(DTYPES))
    return name
