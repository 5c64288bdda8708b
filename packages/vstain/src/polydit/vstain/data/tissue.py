"""An endless procedural slide: H&E, its immunohistochemistry, and the masks, at any window.

A stand-in for tissue that shows whether a stain is learned: nuclei on a jittered lattice, of three kinds that differ in
size, shape and darkness. Epithelial cells lie in glands and carry CK in their cytoplasm: easy to tell by their texture.
Lymphocytes are small and dark and carry CD3 at their rim: harder. So the marker follows from the H&E, as in the pair
of stains of StainDiffuser (Kataria et al. 2024, arXiv 2403.11340).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from polydit.core.errors import InputError
from polydit.vstain.data.lattice import noise_at, noise_samples, place_uniform, smooth_noise
from polydit.vstain.data.recipe import MPP as MPP
from polydit.vstain.data.recipe import STAINS as STAINS

_CELL = 24  # pixels between places of the lattice of nuclei
_JITTER = 7.0  # how far a nucleus may lie from its place
_WHITE = 245.0
# optical densities (R, G, B) of haematoxylin, eosin and DAB: Ruifrok & Johnston 2001, normalised
_STAIN_COLOURS = np.array([(0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78)])
_STAIN_COLOURS = (_STAIN_COLOURS / np.linalg.norm(_STAIN_COLOURS, axis=1, keepdims=True)).astype(np.float32)
_DENSITY = np.float32(1.6)  # natural optical density of one unit of stain
_TISSUE = ((0, 1500.0), (1, 180.0))  # channel and scale of the fields whose sum tells tissue from glass
_EPITHELIAL, _LYMPHOCYTE, _STROMAL, _NONE = range(4)
# pixels from a centre beyond which a cell of each kind paints nothing: longest half axis, cytoplasm or rim, and one
_REACH = {_EPITHELIAL: 14, _LYMPHOCYTE: 10, _STROMAL: 12}
_MARGIN = 2 * max(_REACH.values()) + 1  # round a window: the box of every cell that touches it lies inside


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """A window of the slide.

    Args:
        he: Haematoxylin and eosin.
        ihc: The stain with its counterstain.
        mask: True in positive cells.
        nuclei: True in nuclei.
    """

    he: UInt8[np.ndarray, "h w 3"]
    ihc: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    nuclei: Bool[np.ndarray, "h w"]


class _Cells(NamedTuple):
    """Attributes of the places of the lattice, each of shape (rows, columns)."""

    x: Float32[np.ndarray, "r c"]
    y: Float32[np.ndarray, "r c"]
    kind: Int[np.ndarray, "r c"]
    length: Float32[np.ndarray, "r c"]  # of the longer half axis
    thin: Float32[np.ndarray, "r c"]  # shorter half axis over the longer
    cosine: Float32[np.ndarray, "r c"]
    sine: Float32[np.ndarray, "r c"]
    darkness: Float32[np.ndarray, "r c"]
    strength: Float32[np.ndarray, "r c"]  # of the marker


def render(
    seed: int, x: int, y: int, width: int, height: int, stain: str, *, coverage: float = 0.9
) -> Rendered:
    """A window of the slide; neighbouring windows agree pixel for pixel.

    Args:
        seed: Which slide.
        x: Left edge of the window in pixels of `MPP`.
        y: Its upper edge.
        width: Its columns.
        height: Its rows.
        stain: One of `STAINS`.
        coverage: Share of the plane that is tissue; the rest is glass.

    Raises:
        InputError: No such stain, an empty window, or a coverage outside 0..1.
    """
    if stain not in STAINS:
        raise InputError(f"no procedural stain {stain!r}", expected=", ".join(STAINS))
    if min(width, height) < 1 or not 0.0 <= coverage <= 1.0:
        raise InputError(f"a window of {width} x {height} with coverage {coverage:g}")
    window = (seed, x, y, width, height)
    tissue = _tissue(*window, coverage)
    layers = _Layers(*window)
    cells = _cells(seed, x, y, width, height, coverage)
    for kind in _REACH:
        layers.add(cells, kind)
    return layers.images(stain, tissue)


def _tissue(
    seed: int, x: int, y: int, width: int, height: int, coverage: float
) -> Float32[np.ndarray, "h w"]:
    """1 in tissue, 0 on glass, between them at the rim."""
    if coverage >= 1.0:
        return np.ones((height, width), np.float32)
    field = _tissue_field(seed, x, y, width, height)
    return np.clip((field - _threshold(seed, coverage)) * 60.0, 0.0, 1.0)


def _tissue_field(seed: int, x: int, y: int, width: int, height: int) -> Float32[np.ndarray, "h w"]:
    window = (seed, x, y, width, height)
    return _joined(*(smooth_noise(*window, scale=scale, channel=channel) for channel, scale in _TISSUE))


def _joined(
    coarse: Float32[np.ndarray, "h w"], fine: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"]:
    return 0.85 * coarse + 0.15 * fine


@lru_cache(maxsize=16)
def _threshold(seed: int, coverage: float) -> float:
    """The value of the tissue field above which the share `coverage` of the plane lies."""
    at = np.arange(0, 16384, 64)
    field = _joined(*(noise_samples(seed, at, scale=scale, channel=channel) for channel, scale in _TISSUE))
    return float(np.quantile(field, 1.0 - coverage))


def _cells(seed: int, x: int, y: int, width: int, height: int, coverage: float) -> _Cells:
    """All cells that may reach into the window."""
    rows = np.arange(y // _CELL - 1, (y + height - 1) // _CELL + 2)
    columns = np.arange(x // _CELL - 1, (x + width - 1) // _CELL + 2)

    def draw(channel: int) -> Float32[np.ndarray, "r c"]:
        return place_uniform(seed, rows, columns, 100 + channel)

    centre_x = (columns[None, :] + 0.5) * _CELL + (2.0 * draw(0) - 1.0) * _JITTER
    centre_y = (rows[:, None] + 0.5) * _CELL + (2.0 * draw(1) - 1.0) * _JITTER
    centre_x, centre_y = centre_x.astype(np.float32), centre_y.astype(np.float32)
    gland = noise_at(seed, centre_x, centre_y, scale=110.0, channel=2)
    immune = noise_at(seed, centre_x, centre_y, scale=140.0, channel=3)
    lymphocyte = draw(2) < np.clip(2.2 * immune - 0.85, 0.03, 0.9)
    kind = np.where(gland > 0.55, _EPITHELIAL, np.where(lymphocyte, _LYMPHOCYTE, _STROMAL))
    kind = np.where((gland > 0.55) & (draw(3) < 0.06), _LYMPHOCYTE, kind)  # those between epithelial cells
    kind = np.where(draw(4) < 0.12, _NONE, kind)
    if coverage < 1.0:
        around = _tissue_field(
            seed,
            int(centre_x.min()),
            int(centre_y.min()),
            int(np.ptp(centre_x)) + 2,
            int(np.ptp(centre_y)) + 2,
        )
        here = around[
            (centre_y - int(centre_y.min())).astype(int), (centre_x - int(centre_x.min())).astype(int)
        ]
        kind = np.where(here < _threshold(seed, coverage) + 0.02, _NONE, kind)
    size = draw(5)
    length = np.choose(kind, (6.0 + 2.0 * size, 4.0 + size, 7.0 + 3.0 * size, np.zeros_like(size)))
    thin = np.choose(kind, (0.8 + 0.2 * draw(6), 0.9 + 0.1 * draw(6), 0.35 + 0 * size, 1.0 + 0 * size))
    angle = np.pi * draw(7)
    dark = np.choose(kind, (0.42 + 0.1 * draw(8), 0.85 + 0.1 * draw(8), 0.6 + 0.1 * draw(8), 0 * size))
    strength = 0.9 + 0.2 * draw(9)
    numbers = (length, thin, np.cos(angle), np.sin(angle), dark, strength)
    return _Cells(centre_x, centre_y, kind, *(values.astype(np.float32) for values in numbers))


class _Boxes(NamedTuple):
    """Squares round the cells of one kind that touch a window."""

    left: Int[np.ndarray, " n"]
    top: Int[np.ndarray, " n"]
    distance: Float32[np.ndarray, "n s s"]  # from the centre, in pixels along the longer half axis
    length: Float32[np.ndarray, "n 1 1"]
    darkness: Float32[np.ndarray, "n 1 1"]
    strength: Float32[np.ndarray, "n 1 1"]


def _boxes(cells: _Cells, kind: int, x: int, y: int, width: int, height: int) -> _Boxes:
    """Those of the cells of a kind."""
    side = 2 * _REACH[kind] + 1
    left, top = (np.floor(centre).astype(np.int64) - _REACH[kind] for centre in (cells.x, cells.y))
    touches = (left + side > x) & (left < x + width) & (top + side > y) & (top < y + height)
    chosen = touches & (cells.kind == kind)
    left, top = left[chosen], top[chosen]
    centre_x, centre_y, _, length, thin, cosine, sine, darkness, strength = (
        values[chosen][:, None, None] for values in cells
    )
    pixels = np.arange(side)
    dx = (left[:, None, None] + pixels).astype(np.float32) + np.float32(0.5) - centre_x
    dy = (top[:, None, None] + pixels[:, None]).astype(np.float32) + np.float32(0.5) - centre_y
    along = dx * cosine + dy * sine
    beside = (dy * cosine - dx * sine) / thin
    return _Boxes(left, top, np.sqrt(along * along + beside * beside), length, darkness, strength)


class _Layers:
    """Amounts of what is stained, pixel by pixel, as cells are added."""

    def __init__(self, seed: int, x: int, y: int, width: int, height: int) -> None:
        self.window = (seed, x, y, width, height)
        shape = (height + 2 * _MARGIN, width + 2 * _MARGIN)
        self.nucleus, self.haematoxylin = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.epithelium, self.ck = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self.lymphocyte, self.cd3 = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def add(self, cells: _Cells, kind: int) -> None:
        """All cells of a kind."""
        boxes = _boxes(cells, kind, *self.window[1:])
        distance, length = boxes.distance, boxes.length
        nucleus = np.clip(length - distance + 0.5, 0.0, 1.0)
        self._paint(self.nucleus, boxes, nucleus)
        self._paint(self.haematoxylin, boxes, nucleus * boxes.darkness)
        if kind == _EPITHELIAL:
            cytoplasm = np.clip(length + 5.0 - distance, 0.0, 1.0)
            self._paint(self.epithelium, boxes, cytoplasm)
            self._paint(self.ck, boxes, cytoplasm * boxes.strength)
        elif kind == _LYMPHOCYTE:
            self._paint(self.lymphocyte, boxes, np.clip(length + 2.5 - distance, 0.0, 1.0))
            rim = np.clip(2.5 - np.abs(distance - length - 0.5), 0.0, 1.0)
            self._paint(self.cd3, boxes, rim * boxes.strength)

    def _paint(
        self, layer: Float32[np.ndarray, "H W"], boxes: _Boxes, amounts: Float32[np.ndarray, "n s s"]
    ) -> None:
        """Where cells overlap, the greater amount stays."""
        _, x, y, _, _ = self.window
        side = amounts.shape[1]
        for row, column, amount in zip(
            boxes.top - y + _MARGIN, boxes.left - x + _MARGIN, amounts, strict=True
        ):
            there = layer[row : row + side, column : column + side]
            np.maximum(there, amount, out=there)

    def images(self, stain: str, tissue: Float32[np.ndarray, "h w"]) -> Rendered:
        """The window as pictures."""
        inside = slice(_MARGIN, -_MARGIN)
        nucleus, haematoxylin, epithelium, ck, lymphocyte, cd3 = (
            layer[inside, inside]
            for layer in (
                self.nucleus, self.haematoxylin, self.epithelium, self.ck, self.lymphocyte, self.cd3,
            )
        )  # fmt: skip
        chromatin = 0.85 + 0.3 * smooth_noise(*self.window, scale=3.0, channel=4)
        fibres = 0.6 * smooth_noise(*self.window, scale=26.0, channel=5)
        fibres += 0.4 * smooth_noise(*self.window, scale=7.0, channel=6)
        eosin = 0.12 + 0.35 * fibres * (1.0 - 0.5 * epithelium) + 0.10 * epithelium
        haematoxylin = haematoxylin * chromatin + 0.06 * epithelium
        if stain == "ck":
            marker, positive = 0.85 * ck * (1.0 - 0.75 * nucleus), epithelium
        else:
            marker, positive = 0.95 * cd3, lymphocyte
        background = 0.03 + 0.04 * fibres
        none = np.zeros_like(tissue)
        return Rendered(
            he=_picture(tissue * haematoxylin, tissue * eosin * (1.0 - 0.6 * nucleus), none),
            ihc=_picture(tissue * (0.55 * haematoxylin + background), none, tissue * marker),
            mask=positive * tissue > 0.5,
            nuclei=nucleus * tissue > 0.5,
        )


def _picture(
    haematoxylin: Float32[np.ndarray, "h w"],
    eosin: Float32[np.ndarray, "h w"],
    dab: Float32[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Amounts of stain to light (Beer and Lambert)."""
    amounts = np.stack([haematoxylin, eosin, dab], axis=-1)
    return np.rint(_WHITE * np.exp(-_DENSITY * (amounts @ _STAIN_COLOURS))).astype(np.uint8)
