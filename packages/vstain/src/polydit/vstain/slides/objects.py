"""Positive objects of a mask of any size: connected regions, each found once, as GeoJSON for QuPath.

The mask is labelled tile by tile, and labels that touch across a border are made one; so an object is whole and counted
once wherever the tiles lie. Memory grows with the number of objects, not with the slide.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from jaxtyping import Bool, Float64, Int, UInt8

from polydit.core.jobs.files import atomic_file
from polydit.vstain.slides.writing import Raster

_TILE = 1024
_FEWEST_PIXELS: Final = 16  # smaller regions are specks: a nucleus of 5 microns has 80 pixels at 0.5 microns
_MOST_SIDE = 4096  # larger objects are outlined on every n-th pixel
_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(slots=True)
class MaskObject:
    """A connected region, in pixels of the mask.

    Args:
        area: Pixels.
        box: Left, top, right and bottom; the last two are not part of it.
        seed: Column and row of one of its pixels.
        sum_x: Of its pixels' columns.
        sum_y: Of their rows.
    """

    area: int
    box: tuple[int, int, int, int]
    seed: tuple[int, int]
    sum_x: float
    sum_y: float

    @property
    def centroid(self) -> tuple[float, float]:
        """Mean place of its pixels; the middle of a pixel is at a half."""
        return self.sum_x / self.area + 0.5, self.sum_y / self.area + 0.5

    def joined(self, other: MaskObject) -> MaskObject:
        """Both as one."""
        a, b = self.box, other.box
        box = min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
        area = self.area + other.area
        return MaskObject(area, box, self.seed, self.sum_x + other.sum_x, self.sum_y + other.sum_y)


def find_objects(mask: Raster) -> list[MaskObject]:
    """All regions of at least 16 pixels that touch by a side or a corner, in the order of rows.

    Args:
        mask: 0 or 255.
    """
    found = _Regions()
    above = np.zeros(mask.width, np.int64)  # labels of the last row of pixels, 0 = none
    for y in range(0, mask.height, _TILE):
        rows = min(_TILE, mask.height - y)
        below = np.zeros(mask.width, np.int64)
        beside = np.zeros(rows, np.int64)
        for x in range(0, mask.width, _TILE):
            columns = min(_TILE, mask.width - x)
            labels = found.add(mask.window(x, y, columns, rows)[..., 0] > 127, x, y)
            found.touch(labels[:, 0], beside)
            reach = slice(max(x - 1, 0), x + columns + 1)  # corners touch too
            found.touch(labels[0], above[reach], offset=x - reach.start)
            below[x : x + columns], beside = labels[-1], labels[:, -1]
        above = below
    objects = [region for region in found.joined() if region.area >= _FEWEST_PIXELS]
    return sorted(objects, key=lambda region: (region.seed[1], region.seed[0]))


class _Regions:
    """Regions by label, and which of them are one (union-find)."""

    def __init__(self) -> None:
        self._regions: list[MaskObject] = []
        self._parent: list[int] = [0]  # of label 0, the background

    def add(self, mask: Bool[np.ndarray, "h w"], x: int, y: int) -> Int[np.ndarray, "h w"]:
        """The regions of a tile; returns their labels."""
        from scipy import ndimage

        labels, number = ndimage.label(mask, _NEIGHBOURS)
        if not number:
            return np.zeros(mask.shape, np.int64)
        first = len(self._parent)
        rows, columns = np.nonzero(labels)
        own = labels[rows, columns]
        areas = np.bincount(own, minlength=number + 1)
        sums_x = np.bincount(own, weights=columns + x, minlength=number + 1)
        sums_y = np.bincount(own, weights=rows + y, minlength=number + 1)
        seeds = np.unique(own, return_index=True)[1]
        for label, (down, across) in enumerate(ndimage.find_objects(labels), start=1):
            seed = int(columns[seeds[label - 1]]) + x, int(rows[seeds[label - 1]]) + y
            box = across.start + x, down.start + y, across.stop + x, down.stop + y
            self._regions.append(
                MaskObject(int(areas[label]), box, seed, float(sums_x[label]), float(sums_y[label]))
            )
        self._parent.extend(range(first, first + number))
        return np.where(labels > 0, labels.astype(np.int64) + (first - 1), 0)

    def touch(self, line: Int[np.ndarray, " n"], other: Int[np.ndarray, " m"], offset: int = 0) -> None:
        """Joins what touches across a border; `line` begins `offset` pixels after `other`."""
        for shift in (-1, 0, 1):
            places = np.arange(len(line)) + offset + shift
            inside = (places >= 0) & (places < len(other))
            pairs = np.stack([line[inside], other[places[inside]]], axis=1)
            for a, b in np.unique(pairs[(pairs > 0).all(axis=1)], axis=0).tolist():
                self._join(a, b)

    def joined(self) -> Iterator[MaskObject]:
        """The regions with those that touch as one."""
        whole: dict[int, MaskObject] = {}
        for label, region in enumerate(self._regions, start=1):
            root = self._root(label)
            whole[root] = whole[root].joined(region) if root in whole else region
        return iter(whole.values())

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label

    def _join(self, a: int, b: int) -> None:
        a, b = self._root(a), self._root(b)
        self._parent[max(a, b)] = min(a, b)


def outline(mask: Raster, region: MaskObject) -> list[Float64[np.ndarray, "n 2"]]:
    """The borders of a region as closed lines of (x, y) in pixels of the mask: the outer one, then its holes.

    Holes of less than 16 pixels are left out.

    Args:
        mask: Where it was found.
        region: One of `find_objects`.
    """
    from scipy import ndimage
    from skimage.measure import find_contours

    left, top, right, bottom = region.box
    step = -(-max(right - left, bottom - top) // _MOST_SIDE)
    window = _every(mask, region.box, step)
    labels, _ = ndimage.label(window > 127, _NEIGHBOURS)
    own = np.pad(labels == labels[(region.seed[1] - top) // step, (region.seed[0] - left) // step], 1)
    holes, _ = ndimage.label(~own)
    small = np.bincount(holes.ravel()) * step**2 < _FEWEST_PIXELS
    small[0] = False  # the region itself
    own |= small[holes]
    # corners belong together, as in the labels
    lines = find_contours(own.astype(np.float32), 0.5, fully_connected="high")
    rings = [_without_straight(line) for line in sorted(lines, key=_area, reverse=True)]
    # a line lies between the middles of pixels; the middle of the first one, which is padding, is at -0.5
    return [(ring[:, ::-1] - 0.5) * step + np.array([left, top]) for ring in rings]


def _without_straight(line: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "m 2"]:
    """A closed line without the points between which it goes straight on."""
    steps = np.diff(line, axis=0)
    before = np.roll(steps, 1, axis=0)
    turns = steps[:, 0] * before[:, 1] != steps[:, 1] * before[:, 0]
    points = line[:-1][turns]
    return np.concatenate([points, points[:1]])


def _every(mask: Raster, box: tuple[int, int, int, int], step: int) -> UInt8[np.ndarray, "h w"]:
    """Every `step`-th pixel of a window, read in bands."""
    left, top, right, bottom = box
    if step == 1:
        return mask.window(left, top, right - left, bottom - top)[..., 0]
    band = _TILE // step * step
    return np.concatenate(
        [
            mask.window(left, y, right - left, min(band, bottom - y))[::step, ::step, 0]
            for y in range(top, bottom, band)
        ]
    )


def _area(line: Float64[np.ndarray, "n 2"]) -> float:
    """That a closed line encloses (Gauss)."""
    y, x = line[:-1].T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def write_geojson(
    path: Path, mask: Raster, objects: Sequence[MaskObject], *, scale: float, name: str, mpp: float
) -> None:
    """Writes objects as a GeoJSON FeatureCollection, in pixels of the input's full resolution from its upper left.

    Args:
        path: The file.
        mask: Where they were found.
        objects: Those of `find_objects`.
        scale: Pixels of the input per pixel of the mask.
        name: What QuPath is to call their class.
        mpp: Microns per pixel of the mask.

    Raises:
        OSError: The disk is full or refuses.
    """
    features = (_feature(mask, region, scale, name, mpp) for region in objects)
    with atomic_file(path) as handle:
        _write_all(handle, features)


def _write_all(handle: BinaryIO, features: Iterable[dict[str, Any]]) -> None:
    handle.write(b'{"type": "FeatureCollection", "features": [')
    for number, feature in enumerate(features):
        handle.write((",\n" if number else "\n").encode() + json.dumps(feature).encode())
    handle.write(b"\n]}\n")


def _feature(mask: Raster, region: MaskObject, scale: float, name: str, mpp: float) -> dict[str, Any]:
    x, y = region.centroid
    rings = [np.round(ring * scale, 2).tolist() for ring in outline(mask, region)]
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon",
            "coordinates": rings,
        },
        "properties": {
            "objectType": "annotation",
            "classification": {"name": name},
            "measurements": {
                "Area um^2": round(region.area * mpp**2, 2),
                "Centroid X px": round(x * scale, 2),
                "Centroid Y px": round(y * scale, 2),
            },
        },
    }
