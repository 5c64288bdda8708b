"""A rotatable 3D view of thousands of points; viewer.js paints them into a depth buffer on a plain 2D canvas."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, UInt8

from polydit.core.errors import InputError

_STEPS: Final = 32767  # a coordinate is a 16-bit number: finer than any screen can show
_STOPS: Final = ("#33439a", "#2c78b8", "#229b94", "#71b25a", "#d9a037")
_COLOUR: Final = re.compile(r"#[0-9a-fA-F]{6}")


def ramp(count: int = 64) -> tuple[str, ...]:
    """Colours from low (blue) to high (amber) that can be told apart on white and on near-black."""
    stops = np.array([[int(stop[k : k + 2], 16) for k in (1, 3, 5)] for stop in _STOPS], dtype=np.float64)
    at = np.linspace(0, len(stops) - 1, count)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, k]).round().astype(int) for k in range(3)]
    return tuple(f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in zip(*channels, strict=True))


RAMP: Final = ramp()


def along_the_ramp(values: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    """Place of each value among the colours of `RAMP`, the smallest at its begin and the largest at its end."""
    low, span = float(values.min(initial=np.inf)), float(np.ptp(values)) if values.size else 0.0
    share = (values - low) / span if span > 0.0 else np.full(len(values), 0.5)
    return np.asarray(share * (len(RAMP) - 1)).round().astype(np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PointScene:
    """Points of one size, each in a colour of a palette.

    Args:
        points: Coordinates in any one unit.
        colours: Place of each point's colour in the palette.
        palette: Colours as "#rrggbb", at most 256.
        radius: Of a point, in the unit of the coordinates; None = what suits their number.
        rotation: Turns the points into the first view, as in `Scene`.

    Raises:
        InputError: A number is not finite, a colour is none, or not every point has one of the palette.
    """

    points: Float[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, " m"]
    palette: Sequence[str] = RAMP
    radius: float | None = None
    rotation: Float[np.ndarray, "3 3"] | None = None

    def __post_init__(self) -> None:
        """Checks what the browser could only answer with an empty picture."""
        if not np.isfinite(self.points).all() or not math.isfinite(self.radius or 0.0):
            raise InputError("the points of a 3D view are not finite", expected="finite numbers")
        if len(self.colours) != len(self.points):
            raise InputError(
                f"{len(self.colours)} colours for {len(self.points)} points", expected="one each"
            )
        for colour in self.palette:
            if not _COLOUR.fullmatch(colour):
                raise InputError(f"{colour!r} is no colour of a 3D view", expected="#rrggbb")
        if len(self.points) and int(self.colours.max()) >= len(self.palette):
            raise InputError("a point of a 3D view has no colour", expected=f"0 to {len(self.palette) - 1}")

    def to_json(self) -> str:
        """The scene as viewer.js reads it: coordinates as 16-bit numbers around the middle of their box."""
        points = np.asarray(self.points, dtype=np.float64)
        low, high = points.min(0, initial=np.inf), points.max(0, initial=-np.inf)
        half = float((high - low).max()) / 2 if len(points) else 0.0
        step = half / _STEPS if half > 0.0 else 1.0
        numbers = np.round((points - (low + high) / 2) / step) if len(points) else points
        radius = self.radius if self.radius is not None else half * _suitable_radius(len(points))
        content = {
            "points": _base64(numbers.astype("<i2")),
            "step": step,
            "colours": _base64(self.colours),
            "palette": list(self.palette),
            "radius": float(f"{radius:.4g}"),
            "rotation": None if self.rotation is None else np.round(self.rotation, 4).tolist(),
        }
        return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _suitable_radius(count: int) -> float:
    """Part of half of the box's longest side; half of it leaves the surface closed, and edges sharp."""
    return min(0.06, max(0.006, 1.0 / math.sqrt(max(count, 1))))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
