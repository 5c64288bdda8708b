"""The procedural slide: any window of it is the same picture, whatever else is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from polydit.core.errors import InputError
from polydit.vstain.colour import coarse_mask
from polydit.vstain.data.lattice import noise_samples, smooth_noise
from polydit.vstain.data.tissue import STAINS, Rendered, render


def images(drawn: Rendered) -> tuple[np.ndarray, ...]:
    return drawn.he, drawn.ihc, drawn.mask, drawn.nuclei


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize(("x", "y"), [(5000, 6000), (-130, -97)])
def test_neighbours_agree_pixel_for_pixel(stain: str, x: int, y: int) -> None:
    whole = images(render(7, x, y, 300, 220, stain))
    for left, top, width, height in (
        (0, 0, 128, 128),
        (128, 0, 172, 128),
        (37, 101, 64, 64),
        (299, 219, 1, 1),
    ):
        part = images(render(7, x + left, y + top, width, height, stain))
        for there, here in zip(whole, part, strict=True):
            assert np.array_equal(there[top : top + height, left : left + width], here)


def test_cells_are_whole_at_the_borders_of_windows() -> None:
    """Every nucleus of the plane is painted in every window that it reaches into, down to one pixel."""
    whole = render(3, 900, 900, 96, 96, "ck", coverage=1.0)
    for row in range(0, 96, 7):
        line = render(3, 900, 900 + row, 96, 2, "ck", coverage=1.0)
        assert np.array_equal(line.nuclei, whole.nuclei[row : row + 2])


def test_what_a_slide_looks_like() -> None:
    glass = render(0, 0, 0, 64, 64, "ck", coverage=0.0)
    assert not glass.mask.any() and not glass.nuclei.any() and (glass.he == 245).all()
    tissue = render(0, 0, 0, 512, 512, "ck", coverage=1.0)
    assert 0.1 < tissue.nuclei.mean() < 0.2
    count = ndimage.label(tissue.nuclei)[1]
    assert 200 < count < 450  # a place every 24 pixels, an eighth of them empty


@pytest.mark.parametrize("coverage", [0.3, 0.8])
def test_the_share_of_tissue_is_the_coverage(coverage: float) -> None:
    places = np.random.default_rng(0).integers(0, 16384, (80, 2)).tolist()
    drawn = [render(seed % 10, *place, 8, 8, "ck", coverage=coverage) for seed, place in enumerate(places)]
    tissue = np.mean([image.he.min(axis=2) < 240 for image in drawn])
    assert abs(tissue - coverage) < 0.15


@pytest.mark.parametrize(("stain", "agreement"), [("ck", 0.7), ("cd3", 0.6)])
def test_the_coarse_labels_find_the_positive_cells(stain: str, agreement: float) -> None:
    drawn = render(1, 4000, 4000, 512, 512, stain, coverage=1.0)
    coarse = coarse_mask(drawn.ihc)
    assert 2 * (coarse & drawn.mask).sum() / (coarse.sum() + drawn.mask.sum()) > agreement


def test_samples_of_the_noise_are_the_noise() -> None:
    at = np.array([-700, -3, 0, 64, 65, 4000])
    field = smooth_noise(5, -700, -700, 4701, 4701, scale=180.0, channel=1)
    there = field[np.ix_(at + 700, at + 700)]
    assert np.allclose(noise_samples(5, at, scale=180.0, channel=1), there, atol=1e-6)


def test_the_slides_stay_what_they_are() -> None:
    """Data sets and starters name seeds: a change here would change what those mean."""
    drawn = render(12345, 1000, 2000, 64, 64, "cd3", coverage=1.0)
    told = [int(image.astype(np.int64).sum()) for image in images(drawn)]
    assert told == [2415610, 2754500, 28, 585]


@pytest.mark.parametrize(
    "wrong", [{"stain": "her2"}, {"width": 0}, {"height": -1}, {"coverage": 1.1}, {"coverage": -0.1}]
)
def test_what_is_no_window_is_refused(wrong: dict[str, object]) -> None:
    window = {"seed": 0, "x": 0, "y": 0, "width": 8, "height": 8, "stain": "ck"}
    with pytest.raises(InputError):
        render(**{**window, **wrong})  # type: ignore[arg-type]
