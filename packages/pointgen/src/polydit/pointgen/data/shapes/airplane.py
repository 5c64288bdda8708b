"""Airplanes: a fuselage, wings, a tail, and engines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from polydit.pointgen.data.shapes.primitives import Part, bar, join, loft, pair, tube

# Outline of a wing's cross-section: share of the chord from the leading edge, and share of the thickness.
_FOIL = np.array([(0.0, 0.0), (0.12, 0.5), (0.45, 0.55), (1.0, 0.0), (0.45, -0.45), (0.12, -0.4)])


class _Body(NamedTuple):
    """Measures in lengths of the fuselage; its nose is at z = -0.5."""

    radius: float
    tail_rise: float


class _Wing(NamedTuple):
    """One half: from the root outwards along x, or upwards for a fin."""

    root: tuple[float, float, float]  # its leading edge
    chord: float
    taper: float
    span: float
    sweep: float  # angle of the leading edge
    rise: float  # angle of the dihedral; pi/2 = a fin
    thickness: float = 0.11  # of the chord

    def at(self, share: float, back: float = 0.0) -> np.ndarray:
        """A point of it: share of the span, share of the chord behind the leading edge."""
        out = share * self.span
        chord = self.chord * (1 + (self.taper - 1) * share)
        offset = np.array([np.cos(self.rise), np.sin(self.rise), np.tan(self.sweep)]) * out
        return np.array(self.root) + offset + [0.0, 0.0, back * chord]


def airplane(rng: np.random.Generator) -> Part:
    """An airplane that flies towards -z."""
    body = _Body(rng.uniform(0.045, 0.085), rng.uniform(0.2, 0.8))
    wing = _main_wing(rng, body)
    parts = [_fuselage(rng, body), *pair(_skin(wing)), *_tail(rng, body), *_engines(rng, body, wing)]
    return join(parts)


def _fuselage(rng: np.random.Generator, body: _Body) -> Part:
    nose, tail = rng.uniform(0.08, 0.2), rng.uniform(0.22, 0.42)
    front = np.linspace(0.0, 1.0, 6)
    back = np.linspace(0.0, 1.0, 6)[1:]
    z = np.concatenate([-0.5 + nose * front, 0.5 - tail + tail * back])
    tip = rng.uniform(0.1, 0.3)
    radius = np.concatenate([np.sqrt(1 - (1 - front) ** 2) * 0.97 + 0.03, 1 - (1 - tip) * back**1.5])
    rise = np.concatenate([np.zeros(6), (1 - radius[6:]) * body.tail_rise]) * body.radius
    path = np.stack([np.zeros_like(z), rise, z], -1)
    turn = 2 * np.pi * np.arange(14) / 14
    circle = np.stack([np.cos(turn), np.sin(turn) * rng.uniform(0.95, 1.15), np.zeros(14)], -1)
    return loft(path[:, None] + circle * (radius * body.radius)[:, None, None])


def _main_wing(rng: np.random.Generator, body: _Body) -> _Wing:
    sweep = rng.choice([rng.uniform(0.0, 0.12), rng.uniform(0.3, 0.75)], p=[0.3, 0.7])
    high = rng.random() < 0.25
    chord = rng.uniform(0.14, 0.3) if sweep > 0.12 else rng.uniform(0.12, 0.2)
    return _Wing(
        root=(0.0, body.radius * (0.75 if high else -0.55), rng.uniform(-0.22, -0.04)),
        chord=chord,
        taper=rng.uniform(0.2, 0.5) if sweep > 0.12 else rng.uniform(0.55, 1.0),
        span=rng.uniform(0.32, 0.58),
        sweep=sweep,
        rise=rng.uniform(-0.04, 0.03) if high else rng.uniform(0.02, 0.13),
    )


def _skin(wing: _Wing) -> Part:
    rings = []
    for share in (0.0, 1.0):
        chord = wing.chord * (1 + (wing.taper - 1) * share)
        thick = np.array([-np.sin(wing.rise), np.cos(wing.rise), 0.0]) * wing.thickness * chord
        rings.append(wing.at(share) + _FOIL[:, :1] * [0, 0, chord] + _FOIL[:, 1:] * thick)
    return loft(np.array(rings))


def _tail(rng: np.random.Generator, body: _Body) -> list[Part]:
    chord = rng.uniform(0.1, 0.16)
    fin = _Wing(
        root=(0.0, body.radius * 0.35, 0.5 - chord - rng.uniform(0.0, 0.05)),
        chord=chord,
        taper=rng.uniform(0.35, 0.75),
        span=rng.uniform(0.12, 0.21),
        sweep=rng.uniform(0.2, 0.8),
        rise=np.pi / 2,
    )
    raised = rng.choice([0.0, 0.95], p=[0.75, 0.25])  # T-tail
    root = fin.at(raised)
    plane = _Wing(
        root=(0.0, float(root[1]), float(root[2]) + (0.02 if raised else 0.0)),
        chord=chord * (0.75 if raised else rng.uniform(0.75, 1.0)),
        taper=rng.uniform(0.4, 0.8),
        span=rng.uniform(0.14, 0.24),
        sweep=rng.uniform(0.1, 0.7),
        rise=0.0 if raised else rng.uniform(0.0, 0.12),
    )
    return [_skin(fin), *pair(_skin(plane))]


def _engines(rng: np.random.Generator, body: _Body, wing: _Wing) -> list[Part]:
    kind = rng.choice(["none", "two", "four", "rear", "propellers"], p=[0.2, 0.36, 0.16, 0.14, 0.14])
    length, radius = rng.uniform(0.09, 0.15), rng.uniform(0.02, 0.033)
    if kind == "none":
        return []
    if kind == "rear":
        at = np.array([body.radius + radius * 1.1, body.radius * 0.5, rng.uniform(0.16, 0.24)])
        pylon = bar((0.0, at[1], at[2] + length / 2), (at[0], at[1], at[2] + length / 2), 0.008, sides=4)
        return [*pair(_nacelle(at, length, radius)), *pair(pylon)]
    shares = {"two": [0.36], "four": [0.3, 0.6], "propellers": [0.34]}[kind]
    parts: list[Part] = []
    for share in shares:
        if kind == "propellers":
            at = wing.at(share) + np.array([0, 0.01, -length * 0.5])
            parts += pair(_nacelle(at, length * 1.4, radius * 0.8))
            blade = rng.uniform(0.05, 0.08)
            parts += pair(bar((at[0], at[1] - blade, at[2]), (at[0], at[1] + blade, at[2]), 0.006, sides=4))
        else:
            at = wing.at(share) + np.array([0, -radius * 1.2, -length * 0.55])
            parts += pair(_nacelle(at, length, radius))
    return parts


def _nacelle(front: np.ndarray, length: float, radius: float) -> Part:
    z = np.array([0.0, 0.25, 0.7, 1.0])
    path = front + np.stack([np.zeros(4), np.zeros(4), z * length], -1)
    return tube(path, radius * np.array([0.85, 1.0, 0.9, 0.55]), 10)
