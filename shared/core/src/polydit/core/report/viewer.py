"""Rotatable 3D views; the drawing is done by viewer.js on a plain 2D canvas."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from polydit.core.errors import InputError
from polydit.core.report.markup import Markup, tag
from polydit.core.report.points import PointScene

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
HANDS = "Drag to turn, click and scroll to zoom, double-click to reset; or use the arrow keys, + and -."
"""What a page with views says once, above them."""
_HELP = "Drag or use the arrow keys to turn, plus and minus to zoom, 0 to reset."


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """Spheres, sticks and a box. Lengths are in any one unit: the view scales itself to what is there.

    Args:
        points: Centres of the spheres.
        radii: Their radii, one for all or one each.
        colours: Their colours as "#rrggbb", one for all or one each.
        bonds: Sticks (i, j, order): 1, 2 or 3 parallel sticks; 1.5 draws one whole and one dashed.
        cell: Rows are the edges of a box with a corner at the origin, drawn as lines; None draws none.
        rotation: Turns the points into the first view (x to the right, y up, z to the viewer); None looks
            from slightly above with y up.

    Raises:
        InputError: If a coordinate is not finite, a colour is no "#rrggbb" or a bond names no point.
    """

    points: Float[np.ndarray, "n 3"]
    radii: Sequence[float] | float
    colours: Sequence[str] | str
    bonds: Sequence[tuple[int, int, float]] = ()
    cell: Float[np.ndarray, "3 3"] | None = None
    rotation: Float[np.ndarray, "3 3"] | None = None

    def __post_init__(self) -> None:
        """Checks what the browser could only answer with an empty picture."""
        count = len(self.points)
        for name, values in (("points", self.points), ("radii", self.radii), ("cell", self.cell)):
            if values is not None and not np.isfinite(np.asarray(values, dtype=np.float64)).all():
                raise InputError(f"the {name} of a 3D view are not finite", expected="finite numbers")
        for colour in [self.colours] if isinstance(self.colours, str) else self.colours:
            if not _COLOUR.fullmatch(colour):
                raise InputError(f"{colour!r} is no colour of a 3D view", expected="#rrggbb")
        for name, per_point in (("radii", self.radii), ("colours", self.colours)):
            if not isinstance(per_point, str | int | float) and len(per_point) != count:
                raise InputError(f"{len(per_point)} {name} for {count} points", expected="one, or one each")
        if any(not 0 <= end < count for first, second, _ in self.bonds for end in (first, second)):
            raise InputError("a bond of a 3D view names no point", expected=f"0 to {count - 1}")

    def to_json(self) -> str:
        """The scene as viewer.js reads it; safe inside a script element."""
        corners = np.zeros((0, 3)) if self.cell is None else self.cell
        size = np.abs(np.concatenate([self.points, corners])).max(initial=0.0)
        digits = 4 - math.ceil(math.log10(size)) if size > 0 else 0  # finer than any screen can show
        content = {
            "points": _rounded(self.points, digits),
            "radii": _rounded(self.radii, digits),
            "colours": self.colours if isinstance(self.colours, str) else list(self.colours),
            "bonds": [[int(i), int(j), float(order)] for i, j, order in self.bonds],
            "cell": None if self.cell is None else _rounded(self.cell, digits),
            "rotation": None if self.rotation is None else _rounded(self.rotation, 4),
        }
        return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def viewer(scene: Scene | PointScene, *, label: str) -> Markup:
    """One rotatable view.

    Args:
        scene: What is shown.
        label: What a screen reader says, such as "3D structure of C6H6"; how to turn it is added.

    Returns:
        The element; the page around it brings viewer.js once.
    """
    canvas = tag("canvas", tabindex=0, role="img", aria_label=f"{label}. {_HELP}")
    data = tag("script", Markup(scene.to_json()), type="application/json")
    return tag("div", canvas, data, class_="viewer")


def _rounded(values: Sequence[float] | float | np.ndarray, digits: int) -> object:
    """A number or nested lists of numbers, without negative zeros."""
    return (np.round(np.asarray(values, dtype=np.float64), digits) + 0.0).tolist()
