"""From tiles to figures: what is pooled, what is a mean, what does not count, and the intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from polydit.core.figure import Measure
from polydit.vstain.evaluate import scores
from polydit.vstain.evaluate.rules import RULES
from polydit.vstain.evaluate.scores import FEWEST, scores_of
from polydit.vstain.evaluate.tiles import TileScores


def tile(item: str, **fields: Any) -> TileScores:
    plain = {
        "x": 0, "y": 0, "psnr": 20.0, "ssim": 0.5, "mse": 1.0, "colour": 1.0, "iod": 1.0, "iod_reference": 1.0,
        "positive": 0, "positive_reference": 0, "pixels": 100, "dab_r": math.nan, "both": 0, "extra": 0, "missed": 0,
        "dab_both": 0, "dab_extra": 0, "dab_missed": 0, "hd95": math.nan, "nuclei": 0, "nuclei_reference": 0,
    }  # fmt: skip
    return TileScores(item=item, **{**plain, **fields})


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "DRAWS", 50)


def named(tiles: list[TileScores]) -> dict[str, Measure]:
    return {score.name: score for score in scores_of(tiles)}


def test_dice_is_pooled_per_tile_and_of_positive_tiles() -> None:
    tiles = [
        tile("a", both=80, extra=10, missed=10, hd95=2.0),
        tile("b", both=1, extra=0, missed=3, hd95=6.0),
        tile("c"),  # nothing on either side: right
        tile("d", extra=5),  # found where nothing is: wrong
    ]
    found = named(tiles)
    assert found["Dice"].value == pytest.approx(2 * 81 / (2 * 81 + 15 + 13))
    assert found["IoU"].value == pytest.approx(81 / (81 + 15 + 13))
    assert found["precision"].value == pytest.approx(81 / 96)
    assert found["recall"].value == pytest.approx(81 / 94)
    each = [160 / 180, 2 / 5, 1.0, 0.0]
    assert found["Dice per tile"].value == pytest.approx(np.mean(each))
    assert (found["Dice per tile"].count, found["Dice of positive tiles"].count) == (4, 2)
    assert found["Dice of positive tiles"].value == pytest.approx(np.mean(each[:2]))
    assert (found["HD95"].value, found["HD95"].count) == (4.0, 2)


def test_amounts_are_correlated_over_the_set_and_areas_compared_tile_by_tile() -> None:
    tiles = [
        tile(
            "a",
            iod=10.0,
            iod_reference=20.0,
            positive=10,
            positive_reference=30,
            nuclei=9,
            nuclei_reference=10,
        ),
        tile(
            "b",
            iod=20.0,
            iod_reference=40.0,
            positive=30,
            positive_reference=10,
            nuclei=12,
            nuclei_reference=10,
        ),
        tile(
            "c",
            iod=40.0,
            iod_reference=30.0,
            positive=20,
            positive_reference=20,
            nuclei=20,
            nuclei_reference=20,
        ),
    ]
    found = named(tiles)
    assert found["DAB r"].value == pytest.approx(np.corrcoef([10, 20, 40], [20, 40, 30])[0, 1])
    assert (
        found["positive area"].value == found["positive area of the reference"].value == pytest.approx(20.0)
    )
    assert found["positive area error"].value == pytest.approx(40 / 3)
    assert found["mean OD"].value == pytest.approx(70 / 60)
    assert found["nuclei error"].value == pytest.approx(100 * 3 / 40)
    assert (found["DAB pixel r"].value, found["DAB pixel r"].count) == (None, 0)


def test_few_images_have_no_interval_and_many_that_of_their_mean() -> None:
    values = np.random.default_rng(0).uniform(0.4, 0.9, 200)
    many = [tile(f"image {k}", ssim=float(value)) for k, value in enumerate(values)]
    assert named(many[: FEWEST - 1])["SSIM"].interval is None
    score = named(many)["SSIM"]
    assert score.interval is not None and score.value is not None
    low, high = score.interval
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert (low, high) == pytest.approx((score.value - half, score.value + half), abs=0.006)


def test_the_tiles_of_a_slide_are_drawn_together(few_draws: None) -> None:
    """20 slides of 10 alike tiles each know no more than 20 images."""
    values = np.random.default_rng(0).uniform(0.4, 0.9, 20)
    slides = [tile(f"slide {k // 10}", ssim=float(values[k // 10])) for k in range(200)]
    few = [tile(f"slide {k}", ssim=float(values[k])) for k in range(20)]
    assert named(slides)["SSIM"].interval == pytest.approx(named(few)["SSIM"].interval)
    assert named(slides)["SSIM"].count == 200


def test_figures_are_the_same_whenever_they_are_computed(few_draws: None) -> None:
    tiles = [tile(f"{k}", iod=float(k), iod_reference=float(k**2)) for k in range(15)]
    assert scores_of(tiles) == scores_of(tiles)


def test_of_nothing_there_are_no_figures() -> None:
    assert {score.value for score in scores_of([])} == {None}
    assert len({rule.name for rule in RULES}) == len(RULES)
