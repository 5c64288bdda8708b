"""The checkpoint that ships: it stains tissue that it has not seen, and leaves glass white."""

from __future__ import annotations

import numpy as np
import pytest

from polydit.vstain import StainRequest, load
from polydit.vstain.colour import dab
from polydit.vstain.data.tissue import render
from polydit.vstain.domain import STARTER, check_images, check_slides, check_starter
from polydit.vstain.evaluate.masks import Overlap, dice
from polydit.vstain.noise import noise_field
from polydit.vstain.pipeline import StainPipeline

UNSEEN = 2**40  # a slide of no tile of the training data


@pytest.fixture(scope="module")
def starter() -> StainPipeline:
    return load()


def test_it_is_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in STARTER.path.rglob("*.safetensors")) <= 12_000_000


@pytest.mark.parametrize("stain, least", [("ck", 0.85), ("cd3", 0.75)])
def test_it_finds_the_positive_cells_and_their_dab(starter: StainPipeline, stain: str, least: float) -> None:
    tiles = [render(UNSEEN, 300 * i, 0, 160, 160, stain, coverage=1.0) for i in range(3)]
    requests = [StainRequest.of(str(i), tile.he, stain=stain) for i, tile in enumerate(tiles)]
    made = starter(requests, num_steps=5)
    overlaps = [Overlap.of(stained.mask, tile.mask) for stained, tile in zip(made, tiles, strict=True)]
    found = [sum(getattr(overlap, name) for overlap in overlaps) for name in ("both", "extra", "missed")]
    assert found[0] + found[2] > 500  # pixels of positive cells
    assert dice(*found) >= least
    ours, real = (np.stack([dab(image) for image in images]).ravel() for images in (
        [stained.ihc for stained in made], [tile.ihc for tile in tiles])
    )  # fmt: skip
    assert np.corrcoef(ours, real)[0, 1] >= 0.85


def test_glass_stays_white(starter: StainPipeline) -> None:
    glass = np.full((64, 64, 3), 245, np.uint8)
    for stain in starter.stains:
        (made,) = starter([StainRequest.of("glass", glass, stain=stain)])
        assert np.abs(made.ihc.astype(int) - 245).max() <= 8
        assert made.mask is not None and not made.mask.any()


def test_neighbours_agree_where_they_overlap(starter: StainPipeline) -> None:
    """From the noise of the place; from noise of their own they differ more."""
    left, right = (render(UNSEEN, x, 0, 128, 128, "ck", coverage=1.0).he for x in (0, 64))

    def request(he: np.ndarray, x: int, y: int = 0) -> StainRequest:
        return StainRequest(id=f"{x} {y}", he=he, stain="ck", noise=noise_field(1, x, y, 128, 128, 4))

    first, second, other = starter(
        [request(left, 0), request(right, 64), request(right, 64, 10_000)], num_steps=5
    )

    def difference(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a[:, 80:112].astype(float) - b[:, 16:48]).mean())

    assert difference(first.ihc, second.ihc) < 0.5 * difference(first.ihc, other.ihc)


@pytest.mark.parametrize("check", [check_images, check_slides, check_starter])
def test_the_doctor_finds_nothing_wrong(check) -> None:  # type: ignore[no-untyped-def]
    assert check().status == "ok"
