"""Chairs: a seat, a back, something to stand on, and often arms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from polydit.pointgen.data.shapes.primitives import (
    Part,
    bar,
    box,
    join,
    loft,
    pair,
    prism,
    superellipse,
    tube,
)


class _Seat(NamedTuple):
    """Measures in metres."""

    width: float
    depth: float
    height: float  # of its upper side
    thickness: float


def chair(rng: np.random.Generator) -> Part:
    """A chair that faces -z."""
    seat = _Seat(
        rng.uniform(0.42, 0.64), rng.uniform(0.42, 0.6), rng.uniform(0.36, 0.52), rng.uniform(0.03, 0.1)
    )
    return join([*_seat(rng, seat), *_stand(rng, seat), *_back(rng, seat), *_arms(rng, seat)])


def _seat(rng: np.random.Generator, seat: _Seat) -> list[Part]:
    exponent = rng.uniform(2.5, 5.0) if rng.random() < 0.35 else 40.0  # rounded, or a rectangle
    outline = superellipse(seat.width, seat.depth, exponent)
    return [prism(outline, seat.height - seat.thickness, seat.height)]


# --- stand ----------------------------------------------------------------------------------------------


def _stand(rng: np.random.Generator, seat: _Seat) -> list[Part]:
    kind = rng.choice(["legs", "star", "sled"], p=[0.62, 0.25, 0.13])
    if kind == "star":
        return _star(rng, seat)
    return _sled(rng, seat) if kind == "sled" else _legs(rng, seat)


def _legs(rng: np.random.Generator, seat: _Seat) -> list[Part]:
    radius, sides = rng.uniform(0.014, 0.032), int(rng.choice([4, 10]))
    taper, splay = rng.uniform(0.55, 1.0), rng.choice([0.0, rng.uniform(0.0, 0.07)])
    x, z = seat.width / 2 - radius - 0.015, seat.depth / 2 - radius - 0.015
    under = seat.height - seat.thickness
    parts: list[Part] = []
    for side in (-1.0, 1.0):
        foot, top = (x + splay, 0.0, side * (z + splay)), (x, under, side * z)
        parts += pair(bar(foot, top, radius * taper, radius, sides))
    if rng.random() < 0.4:  # stretchers from front to back
        share = rng.uniform(0.25, 0.6)
        at, y = splay * (1 - share), share * under
        ends = (x + at, y, -z - at), (x + at, y, z + at)
        parts += pair(bar(*ends, radius * 0.6, sides=sides))
        parts.append(bar((-x - at, y, 0.0), (x + at, y, 0.0), radius * 0.6, sides=sides))
    return parts


def _star(rng: np.random.Generator, seat: _Seat) -> list[Part]:
    """A column on four or five arms, or on a disc."""
    under, reach = seat.height - seat.thickness, rng.uniform(0.4, 0.55) * max(seat.width, seat.depth)
    column = bar((0, 0.04, 0), (0, under, 0), rng.uniform(0.022, 0.04))
    if rng.random() < 0.3:
        disc = superellipse(2 * reach, 2 * reach, 2.0)
        return [column, prism(disc, 0.0, rng.uniform(0.015, 0.04))]
    count, start = int(rng.integers(4, 6)), rng.choice([0.0, np.pi / 4])
    turns = start + 2 * np.pi * np.arange(count) / count
    rise = rng.uniform(0.04, 0.1)
    arms = [
        bar((0, rise, 0), (reach * np.sin(turn), 0.02, -reach * np.cos(turn)), 0.026, 0.018, 4)
        for turn in turns
    ]
    return [column, *arms]


def _sled(rng: np.random.Generator, seat: _Seat) -> list[Part]:
    """A bent tube on each side; without its back half the chair swings."""
    radius = rng.uniform(0.012, 0.022)
    x, z, under = seat.width / 2 - 0.04, seat.depth / 2 - 0.03, seat.height - seat.thickness
    path = [(x, under, -z), (x, radius, -z), (x, radius, z)]
    if rng.random() < 0.5:
        path.append((x, under, z))
    return [
        *pair(tube(np.array(path), np.full(len(path), radius))),
        bar((-x, radius, z), (x, radius, z), radius),
    ]


# --- back and arms --------------------------------------------------------------------------------------


def _back(rng: np.random.Generator, seat: _Seat) -> list[Part]:
    kind = rng.choice(["solid", "slats", "rungs", "shell"], p=[0.35, 0.25, 0.2, 0.2])
    height, tilt = rng.uniform(0.34, 0.66), rng.uniform(0.0, 0.25)
    top_share = rng.uniform(0.8, 1.05)  # narrower or wider at the top
    thickness = rng.uniform(0.02, 0.06)
    z, x = seat.depth / 2 - thickness / 2, seat.width / 2 - thickness / 2

    def at(across: float, up: float) -> tuple[float, float, float]:
        """A point of the back: across in -1..1, up in 0..1."""
        share = 1 + (top_share - 1) * up
        return across * x * share, seat.height + up * height * np.cos(tilt), z + up * height * np.sin(tilt)

    if kind == "solid":
        low = rng.choice([0.0, rng.uniform(0.1, 0.35)])
        panel = _panel(np.array([at(-1.0, low), at(1.0, low), at(1.0, 1.0), at(-1.0, 1.0)]), thickness)
        return [panel] if low == 0.0 else [panel, *pair(bar(at(0.7, 0.0), at(0.7, low), 0.015))]
    if kind == "shell":
        return [_shell(rng, seat, height, tilt, thickness * 0.6)]
    posts = pair(bar(at(1.0, 0.0), at(1.0, 1.0), thickness / 2, sides=4))
    if kind == "slats":
        count, width = int(rng.integers(3, 7)), rng.uniform(0.009, 0.018)
        slats = [bar(at(a, 0.0), at(a, 0.95), width, sides=4) for a in np.linspace(-1, 1, count + 2)[1:-1]]
        rail = _panel(np.array([at(-1.0, 0.88), at(1.0, 0.88), at(1.0, 1.0), at(-1.0, 1.0)]), thickness)
        return [*posts, *slats, rail]
    tall, count = rng.uniform(0.06, 0.14), int(rng.integers(2, 5))
    lows = np.linspace(0.25, 1 - tall, count)
    rungs = [
        np.array([at(-1.0, low), at(1.0, low), at(1.0, low + tall), at(-1.0, low + tall)]) for low in lows
    ]
    return [*posts, *(_panel(corners, thickness * 0.7) for corners in rungs)]


def _panel(corners: np.ndarray, thickness: float) -> Part:
    """A board over four corners in one plane, as thick to the front as to the back."""
    normal = np.cross(corners[1] - corners[0], corners[3] - corners[0])
    offset = normal / np.sqrt((normal**2).sum()) * thickness / 2
    return loft(np.stack([corners - offset, corners + offset]))


def _shell(rng: np.random.Generator, seat: _Seat, height: float, tilt: float, thickness: float) -> Part:
    """A back that bends around the sitter."""
    bend, columns = rng.uniform(0.3, 0.9), 9
    turns = np.linspace(-bend, bend, columns)
    half = seat.width / 2
    x, z = half * np.sin(turns) / np.sin(bend), seat.depth / 2 - half * (1 - np.cos(turns)) / np.sin(bend)
    droop = rng.uniform(0.0, 0.4) * (turns / bend) ** 2  # the upper edge falls towards the sides
    low, high = np.full(columns, seat.height - 0.5 * seat.thickness), seat.height + height * (1 - droop)
    back = np.sin(tilt) * (high - low)
    rings = np.stack(
        [
            np.stack([x, low, z], -1),
            np.stack([x, low, z - thickness], -1),
            np.stack([x, high, z - thickness + back], -1),
            np.stack([x, high, z + back], -1),
        ],
        1,
    )
    return loft(rings)


def _arms(rng: np.random.Generator, seat: _Seat) -> list[Part]:
    if rng.random() >= 0.4:
        return []
    high, wide = seat.height + rng.uniform(0.16, 0.27), rng.uniform(0.025, 0.06)
    x, front, back = seat.width / 2, -seat.depth / 2 * rng.uniform(0.5, 1.0), seat.depth / 2
    if rng.random() < 0.3:  # an armchair: closed sides
        return pair(box((x - wide, seat.height - seat.thickness, front), (x + wide / 2, high, back)))
    rest = box((x - wide / 2, high - 0.025, front), (x + wide / 2, high, back))
    post = bar(
        (x, seat.height - seat.thickness, front + 0.03), (x, high - 0.02, front + 0.03), 0.014, sides=4
    )
    return [*pair(rest), *pair(post)]
