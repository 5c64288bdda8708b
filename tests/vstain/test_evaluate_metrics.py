"""Each metric against what is known by hand, by scikit-image or by scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from polydit.vstain.colour import OPTICAL_DENSITY, POSITIVE, coarse_mask, dab, positive_region
from polydit.vstain.data.tissue import render
from polydit.vstain.evaluate.amounts import Amount, pearson
from polydit.vstain.evaluate.images import MOST_PSNR, colour_distance, mean_squared_error, psnr, ssim
from polydit.vstain.evaluate.masks import Overlap, dice, hausdorff_95, iou
from polydit.vstain.evaluate.nuclei import count_nuclei, label_nuclei
from polydit.vstain.evaluate.tiles import Tile, score_tile

DAB_VECTOR = np.array([0.27, 0.57, 0.78])  # Ruifrok & Johnston, as scikit-image has it


def flat(value: int, side: int = 32) -> np.ndarray:
    return np.full((side, side, 3), value, np.uint8)


def ring(radius: float, side: int = 48) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] - side / 2
    return np.hypot(rows, columns) < radius


# ---------------------------------------------------------------------------------------------------------
# Colour.


def test_dab_is_the_third_channel_of_scikit_image() -> None:
    from skimage.color import rgb2hed

    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    image[0, 0] = 0
    assert np.abs(dab(image) - rgb2hed(image)[..., 2]).max() < 1e-6


@pytest.mark.parametrize(("density", "value"), [(0.5, 0.0360), (1.0, 0.0723), (2.0, 0.1440)])
def test_pure_dab_has_a_value_that_is_known(density: float, value: float) -> None:
    """Natural optical densities of pure DAB; 8 bits of colour cost half a percent."""
    pixel = np.rint(255 * np.exp(-density * DAB_VECTOR)).astype(np.uint8)[None, None]
    assert dab(pixel)[0, 0] == pytest.approx(value, abs=8e-4)
    assert OPTICAL_DENSITY * dab(pixel)[0, 0] == pytest.approx(density / math.log(10), rel=0.01)


def test_a_real_stain_has_the_dab_that_is_known() -> None:
    from skimage.data import immunohistochemistry

    amounts = dab(immunohistochemistry())
    assert np.percentile(amounts, [1, 50, 99]) == pytest.approx([0.003, 0.054, 0.192], abs=5e-4)
    assert (amounts > POSITIVE).mean() == pytest.approx(0.40, abs=0.005)
    assert coarse_mask(immunohistochemistry()).mean() == pytest.approx(0.451, abs=0.001)


def test_positive_regions_are_closed_and_lose_specks() -> None:
    above = np.zeros((40, 40), bool)
    above[5:25, 5:25] = True
    above[14:17, 14:17] = False  # a hole of 3 pixels closes
    above[33, 33] = True  # a speck goes
    above[:8, 30:] = True  # at the edge the image goes on as it ends
    found = positive_region(above)
    assert found[14:17, 14:17].all() and not found[30:, 30:].any()
    assert found[0, 39] and found[0, 32:].all()


# ---------------------------------------------------------------------------------------------------------
# Images.


def test_differences_do_not_wrap_at_256() -> None:
    assert mean_squared_error(flat(0), flat(255)) == 255.0**2
    assert mean_squared_error(flat(10), flat(7)) == mean_squared_error(flat(7), flat(10)) == 9.0
    assert psnr(255.0**2) == 0.0
    assert psnr(65.025) == pytest.approx(30.0)
    assert psnr(0.0) == MOST_PSNR


def test_ssim_of_flat_images_is_that_of_their_brightness() -> None:
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)
    assert ssim(flat(100), flat(150)) == pytest.approx(expected)
    assert ssim(flat(90), flat(90)) == 1.0
    assert math.isnan(ssim(flat(0, 10), flat(0, 10)))


def test_the_distance_of_colours_is_how_far_they_move() -> None:
    image = np.random.default_rng(1).integers(20, 200, (30, 40, 3), dtype=np.uint8)
    assert colour_distance(image, image[::-1]) == 0.0
    assert colour_distance(image, image + np.uint8(7)) == pytest.approx(7.0)
    half = image.copy()
    half[..., 0] += 12
    assert colour_distance(image, half) == pytest.approx(4.0)


# ---------------------------------------------------------------------------------------------------------
# Masks.


def test_dice_and_iou_by_hand() -> None:
    mask, truth = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    mask[0, :3] = truth[0, 1:] = truth[3, 0] = True
    overlap = Overlap.of(mask, truth)
    assert overlap == Overlap(both=2, extra=1, missed=2)
    assert dice(2, 1, 2) == pytest.approx(4 / 7)
    assert iou(2, 1, 2) == pytest.approx(2 / 5)
    assert dice(0, 0, 0) == iou(0, 0, 0) == 1.0
    assert dice(0, 3, 0) == dice(0, 0, 3) == 0.0


def test_hausdorff_against_all_pairs_of_outline_pixels() -> None:
    first, second = ring(13), np.roll(ring(9), (4, -6), (0, 1))
    second[2:5, 2:5] = True

    def outline(region: np.ndarray) -> np.ndarray:
        inner = (
            region[1:-1, 1:-1] & region[:-2, 1:-1] & region[2:, 1:-1] & region[1:-1, :-2] & region[1:-1, 2:]
        )
        return np.argwhere(region & ~np.pad(inner, 1))

    distances = cdist(outline(first), outline(second))
    expected = np.percentile(np.concatenate([distances.min(0), distances.min(1)]), 95)
    assert hausdorff_95(first, second) == pytest.approx(expected)
    assert hausdorff_95(second, first) == pytest.approx(expected)


def test_hausdorff_of_a_shift_is_the_shift_and_of_nothing_is_none() -> None:
    square = np.zeros((30, 30), bool)
    square[8:18, 8:18] = True
    assert hausdorff_95(square, square) == 0.0
    assert hausdorff_95(square, np.roll(square, 5, 1)) == 5.0
    for pair in ((square, ~square & False), (~square & False, square)):
        assert math.isnan(hausdorff_95(*pair))


# ---------------------------------------------------------------------------------------------------------
# Amounts and nuclei.


def test_the_integrated_density_is_a_sum_over_positive_pixels() -> None:
    amounts = np.zeros((4, 5), np.float32)
    amounts[0, :2], amounts[3, 0] = 0.1, 0.2
    found = Amount.of(amounts, amounts > 0.15)
    assert (found.iod, found.positive, found.pixels) == (pytest.approx(1.2), 1, 20)
    assert Amount.of(amounts, amounts > 1.0) == Amount(0.0, 0, 20)


def test_correlation_is_that_of_numpy_and_none_of_what_does_not_vary() -> None:
    x, y = np.random.default_rng(2).normal(size=(2, 50))
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert pearson(x, -3 * x + 1) == pytest.approx(-1.0)
    assert math.isnan(pearson(x, np.full(50, 0.1))) and math.isnan(pearson(x[:1], y[:1]))
    constant = np.full((64, 64), 0.07, np.float32)
    assert math.isnan(pearson(constant, constant))


@pytest.mark.parametrize("stain", ["ck", "cd3"])
def test_nuclei_are_counted_to_five_percent(stain: str) -> None:
    from scipy import ndimage

    tile = render(1, 1000, 2000, 256, 256, stain, coverage=1.0)
    there = ndimage.label(tile.nuclei)[1]
    for image in (tile.he, tile.ihc):
        assert count_nuclei(image) == pytest.approx(there, rel=0.05)
    labels = label_nuclei(tile.he)
    assert set(np.unique(labels)) == set(range(labels.max() + 1))
    assert 2 * (tile.nuclei & (labels > 0)).sum() / (tile.nuclei.sum() + (labels > 0).sum()) > 0.9


def test_glass_has_no_nuclei() -> None:
    noise = np.random.default_rng(0).integers(238, 250, (128, 128, 3), dtype=np.uint8)
    assert count_nuclei(flat(245, 128)) == count_nuclei(noise) == 0


# ---------------------------------------------------------------------------------------------------------
# A tile.


def test_a_tile_against_itself_is_perfect() -> None:
    tile = render(1, 1000, 2000, 128, 128, "ck", coverage=1.0)
    scores = score_tile(Tile(tile.ihc, tile.mask), Tile(tile.ihc, tile.mask), item="a")
    assert (scores.ssim, scores.psnr, scores.mse, scores.colour) == (1.0, MOST_PSNR, 0.0, 0.0)
    assert (scores.dice, scores.iou, scores.hd95, scores.area_error) == (1.0, 1.0, 0.0, 0.0)
    assert scores.dab_r == pytest.approx(1.0) and scores.iod == scores.iod_reference > 0
    assert scores.both == tile.mask.sum() and scores.nuclei == scores.nuclei_reference > 10


def test_a_mask_that_is_not_given_is_that_of_the_dab() -> None:
    tile = render(1, 1000, 2000, 128, 128, "ck", coverage=1.0)
    scores = score_tile(Tile(tile.ihc), Tile(tile.ihc, tile.mask), item="a")
    region = coarse_mask(tile.ihc)
    assert scores.both + scores.extra == region.sum() == scores.positive
    assert scores.dice == pytest.approx(2 * (region & tile.mask).sum() / (region.sum() + tile.mask.sum()))
    assert (scores.dab_extra, scores.dab_missed) == (0, 0)


def test_glass_is_told_from_tissue() -> None:
    tile = render(1, 1000, 2000, 128, 128, "ck", coverage=1.0)
    assert Tile(flat(245)).is_glass and not Tile(tile.ihc).is_glass and not Tile(tile.he).is_glass
