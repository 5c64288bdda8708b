"""Cars: a body, a cabin, four wheels, and sometimes a spoiler."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from polydit.pointgen.data.shapes.primitives import Part, bar, box, join, loft, pair


class _Body(NamedTuple):
    """Measures in metres; the front is at z = -length / 2."""

    length: float
    width: float
    floor: float
    hood: float
    belt: float  # where the windows begin
    boot: float


# Share of the length behind the front: where the windscreen begins, where the roof begins and ends, where the rear
# window ends.
_CABINS = {
    "saloon": ((0.26, 0.34), (0.4, 0.46), (0.66, 0.74), (0.8, 0.9)),
    "estate": ((0.26, 0.34), (0.38, 0.44), (0.88, 0.93), (0.945, 0.97)),
    "hatchback": ((0.2, 0.3), (0.35, 0.42), (0.78, 0.86), (0.92, 0.965)),
    "pickup": ((0.26, 0.32), (0.36, 0.42), (0.54, 0.62), (0.57, 0.64)),
    "coupe": ((0.3, 0.38), (0.48, 0.54), (0.6, 0.66), (0.84, 0.94)),
}
_SHARES = (0.36, 0.2, 0.18, 0.1, 0.16)


def car(rng: np.random.Generator) -> Part:
    """A car that drives towards -z."""
    style = str(rng.choice(list(_CABINS), p=_SHARES))
    body = _measures(rng, style)
    radius = rng.uniform(0.29, 0.38)
    parts = [_shell(rng, body, style), _cabin(rng, body, style), *_wheels(rng, body, radius)]
    if style in ("saloon", "coupe") and rng.random() < 0.55:  # three in ten of all cars
        parts += _spoiler(rng, body)
    return join(parts)


def _measures(rng: np.random.Generator, style: str) -> _Body:
    low = -0.07 if style == "coupe" else 0.08 if style == "pickup" else 0.0
    belt = rng.uniform(0.82, 1.02) + low
    return _Body(
        length=rng.uniform(3.6, 4.2) if style == "hatchback" else rng.uniform(4.1, 5.1),
        width=rng.uniform(1.62, 1.95),
        floor=rng.uniform(0.17, 0.3) + max(low, 0.0),
        hood=belt - rng.uniform(0.06, 0.2),
        belt=belt,
        boot=belt - rng.uniform(0.0, 0.1),
    )


def _shell(rng: np.random.Generator, body: _Body, style: str) -> Part:
    """Cross-sections from front to back; corners are cut, so that it is no box."""
    begins, ends = _CABINS[style][0][0], 0.9
    z = np.array([0.0, 0.03, 0.12, begins, 0.5, ends, 0.975, 1.0])
    nose = rng.uniform(0.6, 0.8)
    top = np.array([nose * body.hood, body.hood * 0.93, body.hood, body.hood + 0.02, body.belt, body.boot,
                    body.boot * 0.97, body.boot * rng.uniform(0.7, 0.9)])  # fmt: skip
    bottom = body.floor + np.array([0.12, 0.03, 0.0, 0.0, 0.0, 0.0, 0.05, 0.14])
    half = body.width / 2 * np.array([0.78, 0.9, 0.98, 1.0, 1.0, 0.98, 0.92, 0.84])
    cut, lean = rng.uniform(0.04, 0.12), rng.uniform(0.86, 0.97)
    middle = (bottom + top) / 2
    right = [(half * 0.93, bottom), (half, bottom + cut), (half, middle), (half * lean, top - cut),
             (half * lean * 0.9, top)]  # fmt: skip
    corners = [*right, *((-x, y) for x, y in reversed(right))]
    rings = np.stack([np.stack([x, y, (z - 0.5) * body.length], -1) for x, y in corners], 1)
    return loft(rings)


def _cabin(rng: np.random.Generator, body: _Body, style: str) -> Part:
    screen, front, rear, window = (rng.uniform(*share) for share in _CABINS[style])
    height = rng.uniform(0.4, 0.58) - (0.08 if style == "coupe" else 0.0)
    base, roof = body.belt - 0.06, body.belt + height
    wide, narrow = body.width / 2 * 0.87, body.width / 2 * rng.uniform(0.68, 0.82)
    levels = [
        (base, wide, screen, window),
        (roof - 0.07, narrow * 1.04, front - 0.015, rear + 0.015),
        (roof, narrow * 0.93, front + 0.03, rear - 0.03),
    ]
    rings = [
        [(-half, y, z1), (half, y, z1), (half, y, z0), (-half, y, z0)]
        for y, half, start, end in levels
        for z0, z1 in [((start - 0.5) * body.length, (end - 0.5) * body.length)]
    ]
    return loft(np.array(rings))


def _wheels(rng: np.random.Generator, body: _Body, radius: float) -> list[Part]:
    front, rear = rng.uniform(0.155, 0.2), rng.uniform(0.77, 0.83)
    x, tread = body.width / 2, rng.uniform(0.19, 0.27)
    parts: list[Part] = []
    for share in (front, rear):
        z = (share - 0.5) * body.length
        parts += pair(bar((x - tread, radius, z), (x + 0.01, radius, z), radius, sides=18))
    return parts


def _spoiler(rng: np.random.Generator, body: _Body) -> list[Part]:
    z, rise, half = (
        body.length * rng.uniform(0.43, 0.47),
        rng.uniform(0.1, 0.25),
        body.width * rng.uniform(0.36, 0.46),
    )
    y = body.boot + rise
    blade = box((-half, y - 0.02, z - 0.13), (half, y + 0.02, z + 0.13))
    return [blade, *pair(bar((half * 0.75, body.boot - 0.08, z), (half * 0.75, y, z), 0.03, sides=4))]
