"""Tables: a top, something to stand on, and often a shelf."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from polydit.pointgen.data.shapes.primitives import Part, bar, box, join, pair, prism, superellipse


class _Top(NamedTuple):
    """Measures in metres."""

    width: float
    depth: float
    height: float  # of its upper side
    thickness: float
    exponent: float  # of its outline

    @property
    def corner(self) -> tuple[float, float]:
        """How far legs stand out, of half its width and depth."""
        inset = 0.9 if self.exponent > 10 else 0.5 ** (1 / self.exponent) * 0.92
        return self.width / 2 * inset, self.depth / 2 * inset

    @property
    def under(self) -> float:
        return self.height - self.thickness


def table(rng: np.random.Generator) -> Part:
    """A table whose long side lies along x."""
    top = _top(rng)
    kind = rng.choice(["legs", "pedestal", "panels", "trestle"], p=[0.5, 0.3, 0.12, 0.08])
    stand = {"legs": _legs, "pedestal": _pedestal, "panels": _panels, "trestle": _trestle}[kind](rng, top)
    slab = prism(superellipse(top.width, top.depth, top.exponent, 32), top.under, top.height)
    return join([slab, *stand])


def _top(rng: np.random.Generator) -> _Top:
    width, height, thickness = rng.uniform(0.7, 1.8), rng.uniform(0.38, 0.8), rng.uniform(0.02, 0.07)
    if rng.random() < 0.35:  # round, sometimes oval
        depth = width if rng.random() < 0.6 else width * rng.uniform(0.55, 0.9)
        return _Top(width, depth, height, thickness, 2.0)
    depth = width * rng.uniform(0.4, 1.0)
    return _Top(width, depth, height, thickness, rng.uniform(4.0, 8.0) if rng.random() < 0.2 else 60.0)


def _legs(rng: np.random.Generator, top: _Top) -> list[Part]:
    radius, sides, taper = rng.uniform(0.018, 0.05), int(rng.choice([4, 10])), rng.uniform(0.45, 1.0)
    lean = rng.choice([0.0, rng.uniform(0.0, 0.12)])
    x, z = top.corner
    x, z = x - radius, z - radius
    parts: list[Part] = []
    for side in (-1.0, 1.0):
        foot, head = (x, 0.0, side * z), (x * (1 - lean), top.under, side * z * (1 - lean))
        parts += pair(bar(foot, head, radius * taper, radius, sides))
    if rng.random() < 0.45:  # an apron below the top
        low = top.under - rng.uniform(0.05, 0.12)
        ax, az = x * (1 - lean), z * (1 - lean)
        parts += pair(box((ax - 0.012, low, -az), (ax + 0.012, top.under, az)))
        parts += [box((-ax, low, side * az - 0.012), (ax, top.under, side * az + 0.012)) for side in (-1, 1)]
    return [*parts, *_shelf(rng, top, x, z)]


def _shelf(rng: np.random.Generator, top: _Top, x: float, z: float) -> list[Part]:
    if rng.random() >= 0.4:
        return []
    low, thickness = top.under * rng.uniform(0.12, 0.55), rng.uniform(0.015, 0.035)
    exponent = 2.5 if top.exponent == 2.0 else 60.0
    return [prism(superellipse(2 * x, 2 * z, exponent), low, low + thickness)]


def _pedestal(rng: np.random.Generator, top: _Top) -> list[Part]:
    """One column, or two under a long top, on discs or crossed feet."""
    radius, reach = rng.uniform(0.03, 0.075), rng.uniform(0.5, 0.75) * top.depth / 2
    places = [0.0]
    if top.width > 1.6 * top.depth:
        places, reach = [-top.width / 4, top.width / 4], min(reach * 1.2, top.width / 5)
    crossed, flare = rng.random() < 0.5, rng.uniform(1.0, 2.2)
    thickness, turn = rng.uniform(0.02, 0.06), rng.choice([0.0, np.pi / 4])
    parts: list[Part] = []
    for place in places:
        parts.append(bar((place, 0.02, 0), (place, top.under, 0), radius * flare, radius, 14))
        if not crossed:
            disc = superellipse(2 * reach, 2 * reach, 2.0) + np.array([place, 0.0])
            parts.append(prism(disc, 0.0, thickness))
            continue
        for angle in turn + np.pi / 2 * np.arange(4):
            foot = (place + reach * np.sin(angle), thickness / 2, reach * np.cos(angle))
            parts.append(bar((place, thickness, 0), foot, thickness / 2 + 0.01, thickness / 2, 4))
    return parts


def _panels(rng: np.random.Generator, top: _Top) -> list[Part]:
    """A desk: a board at each end and one behind, sometimes a box of drawers."""
    thickness, depth = rng.uniform(0.02, 0.06), top.corner[1]
    x = top.corner[0]
    parts = pair(box((x - thickness, 0, -depth), (x, top.under, depth)))
    if rng.random() < 0.6:
        low = top.under * rng.uniform(0.2, 0.7)
        parts.append(box((-x, low, depth - thickness), (x, top.under, depth)))
    if rng.random() < 0.5:
        side, wide, low = (
            rng.choice([-1.0, 1.0]),
            rng.uniform(0.25, 0.4) * x,
            top.under * rng.uniform(0.05, 0.4),
        )
        edges = sorted([side * (x - thickness - wide * 2), side * (x - thickness)])
        parts.append(box((edges[0], low, -depth), (edges[1], top.under, depth)))
    return parts


def _trestle(rng: np.random.Generator, top: _Top) -> list[Part]:
    """Crossed legs at each end and a beam between them."""
    radius = rng.uniform(0.02, 0.04)
    x, z = top.corner[0] * rng.uniform(0.75, 1.0), top.corner[1] * 0.9
    legs = [bar((x, 0, -side * z), (x, top.under, side * z), radius, sides=4) for side in (-1.0, 1.0)]
    beam = bar((-x, top.under / 2, 0), (x, top.under / 2, 0), radius * 0.8, sides=4)
    return [*(part for leg in legs for part in pair(leg)), beam]
