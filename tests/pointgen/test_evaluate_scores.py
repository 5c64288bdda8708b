"""Scores of sets whose answer is known, and sets that may not be compared."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.core.figure import Figure, Measure
from polydit.pointgen.cloud import Cloud, Rejected
from polydit.pointgen.evaluate import Figures, evaluate_clouds
from polydit.pointgen.evaluate.match import match_sets
from polydit.pointgen.evaluate.scores import Neighbours, jensen_shannon, neighbour_scores


def scores_of(rows: list[list[float]], references: int) -> dict[str, float | None]:
    matrix = np.array(rows)
    np.fill_diagonal(matrix, np.inf)
    neighbours = Neighbours(matrix, np.arange(len(matrix)) < references)
    return {figure.name: figure.value for figure in neighbour_scores(neighbours, "cd", "test")}


def test_samples_that_have_collapsed_onto_one_reference() -> None:
    """References at 0, 10, 20 on a line, all samples around 0."""
    places = np.array([0.0, 10.0, 20.0, 0.15, 0.2, 0.3])
    found = scores_of(np.abs(places[:, None] - places).tolist(), references=3)
    assert found["cov-cd"] == pytest.approx(1 / 3)
    assert found["mmd-cd"] == pytest.approx((0.15 + 9.7 + 19.7) / 3)
    assert found["mmd-smp-cd"] == pytest.approx(0.65 / 3)
    assert found["1-nna-cd-acc_f"] == 1.0
    assert found["1-nna-cd-acc_t"] == pytest.approx(1 / 3)  # only 20 has a reference nearest
    assert found["1-nna-cd"] == pytest.approx((3 + 1) / 6)


def test_interleaved_sets_are_told_apart_by_nobody() -> None:
    places = np.array([0.0, 2.0, 4.0, 1.0, 3.0, 5.0])
    found = scores_of(np.abs(places[:, None] - places + 1e-3 * np.eye(6)).tolist(), references=3)
    assert found["1-nna-cd"] == 0.0
    assert found["cov-cd"] == 1.0


def test_jsd_of_the_same_points_and_of_points_apart() -> None:
    random = np.random.default_rng(0)
    cloud = random.uniform(-0.2, 0.2, (4, 500, 3)).astype(np.float32)
    assert jensen_shannon(cloud, cloud).value == 0.0
    left, right = cloud - np.float32([0.25, 0, 0]), cloud + np.float32([0.25, 0, 0])
    assert jensen_shannon(left, right).value == pytest.approx(1.0)
    assert "beyond the ball" not in jensen_shannon(cloud, cloud).method
    assert "beyond the ball: 100.0% of the samples'" in jensen_shannon(cloud + np.float32(2.0), cloud).method


def clouds(
    count: int, category: str = "chair", *, points: int = 64, seed: int = 0, scale: float = 1.0
) -> list[Cloud]:
    random = np.random.default_rng(seed)
    sizes = random.uniform(0.6, 1.0, (count, 1, 3))
    values = (random.uniform(-0.5, 0.5, (count, points, 3)) * sizes * scale).astype(np.float32)
    return [Cloud(id=f"{category}-{seed}-{i}", points=p, category=category) for i, p in enumerate(values)]


def test_sets_of_one_distribution_score_about_half_and_a_narrow_one_does_not() -> None:
    references = clouds(60, seed=1)
    fair = evaluate_clouds(clouds(60), references, metrics=("cd",)).get("chair", "1-nna-cd")
    assert isinstance(fair, Figure)
    assert fair.denominator == 120 and fair.interval is not None
    assert fair.interval[0] < 0.5 < fair.interval[1]
    base = clouds(1)[0].points
    noise = np.random.default_rng(2).normal(0, 0.003, (60, 64, 3)).astype(np.float32)
    narrow = [Cloud(id=str(i), points=base + extra, category="chair") for i, extra in enumerate(noise)]
    collapsed = evaluate_clouds(narrow, references, metrics=("cd",))
    assert collapsed.get("chair", "1-nna-cd-acc_f").value == 1.0
    assert collapsed.get("chair", "cov-cd").value < 0.2


def test_every_result_names_its_variant_and_number_of_points() -> None:
    ours, theirs = clouds(6), clouds(6, seed=1)
    for variant, words in (
        ("exact-l2", "L2 not squared"),
        ("exact-squared", "exact assignment, squared"),
        ("kernel", "approximate kernel, squared"),
    ):
        found = evaluate_clouds(ours, theirs, metrics=("emd",), emd=variant, emd_points=16)
        for figure in found.categories["chair"]:
            assert words in figure.method and "16 points" in figure.method
    found = evaluate_clouds(ours, theirs, metrics=("cd", "jsd"))
    assert all("64 points" in figure.method for figure in found.categories["chair"])


def test_each_category_alone_and_the_nearest_reference_of_each_sample() -> None:
    ours, theirs = (
        clouds(4) + clouds(3, "car"),
        clouds(3, "car", seed=1) + clouds(4, seed=1) + clouds(2, "table"),
    )
    theirs[5] = replace(theirs[5], points=ours[1].points)
    found = evaluate_clouds([*ours, Rejected("torn.ply", "cut short")], theirs, metrics=("cd", "jsd"))
    assert list(found.categories) == ["car", "chair"]
    assert found.get("car", "cov-cd").denominator == 3
    rows = {row.sample: row for row in found.nearest}
    assert len(rows) == 7
    assert rows[ours[1].id].reference == theirs[5].id and rows[ours[1].id].distance == 0.0
    files = found.files()
    assert set(files) == {"figures.json", "nearest.csv", "rejected.csv"}
    content = json.loads(files["figures.json"])
    assert content["categories"]["chair"]["1-nna-cd"]["denominator"] == 8
    assert content["rejected"] == 1
    with pytest.raises(KeyError):
        found.get("car", "1-nna-emd")


def test_pairs_are_counted_before_the_work_and_settled_to_the_last() -> None:
    total: list[int] = []
    settled: list[int] = []
    evaluate_clouds(
        clouds(20), clouds(20, seed=1), metrics=("cd",), on_start=total.append, on_pairs=settled.append
    )
    assert total == [40 * 39 // 2] and sum(settled) == total[0]


def test_mmd_has_the_interval_of_a_mean() -> None:
    found = evaluate_clouds(clouds(8), clouds(8, seed=1), metrics=("cd",)).get("chair", "mmd-cd")
    assert isinstance(found, Measure) and found.interval is not None
    assert 0 < found.interval[0] < found.value < found.interval[1]


def refusal(ours: list[Cloud], theirs: list[Cloud], **options: object) -> str:
    with pytest.raises(InputError) as caught:
        evaluate_clouds(ours, theirs, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_other_numbers_of_clouds_are_refused_with_both_and_limit_makes_them_equal() -> None:
    text = refusal(clouds(7), clouds(5, seed=1))
    assert "chair 7 against 5" in text and "--limit 5" in text
    found = evaluate_clouds(clouds(7), clouds(5, seed=1), limit=100, metrics=("cd",))
    assert found.get("chair", "1-nna-cd").denominator == 10
    found = evaluate_clouds(clouds(7), clouds(5, seed=1), limit=3, metrics=("cd",))
    assert found.get("chair", "1-nna-cd").denominator == 6


def test_other_numbers_of_points_are_refused_with_both() -> None:
    text = refusal(clouds(3), clouds(3, points=48))
    assert "64 against 48" in text and "--points 48" in text


@pytest.mark.parametrize("scale", [3.0, 1 / 3.0])
def test_another_normalisation_is_refused_with_both_extents(scale: float) -> None:
    text = refusal(clouds(9, scale=scale), clouds(9, seed=1))
    ours = np.median([np.ptp(cloud.points, axis=0).max() for cloud in clouds(9, scale=scale)])
    assert f"{ours:.3g}" in text and "--normalise unit-box" in text
    found = evaluate_clouds(clouds(9, scale=scale), clouds(9, seed=1), normalise=True, metrics=("cd",))
    same = evaluate_clouds(clouds(9), clouds(9, seed=1), normalise=True, metrics=("cd",))
    assert found.get("chair", "mmd-cd").value == pytest.approx(same.get("chair", "mmd-cd").value, rel=1e-4)


def test_other_centres_are_refused_with_both() -> None:
    moved = [replace(cloud, points=cloud.points + np.float32(2.0)) for cloud in clouds(5)]
    assert "centred differently" in refusal(moved, clouds(5, seed=1))


def test_a_category_that_the_reference_lacks_is_named() -> None:
    text = refusal(clouds(3) + clouds(3, "car"), clouds(3))
    assert "no car" in text and "chair" in text


def test_samples_without_a_category_take_the_only_one() -> None:
    assert list(match_sets(clouds(3, ""), clouds(3)).categories) == ["chair"]
    assert list(match_sets(clouds(3, ""), clouds(3, "")).categories) == ["all"]
    assert "--category" in refusal(clouds(3, ""), clouds(3) + clouds(3, "car"))


def test_nothing_to_evaluate_says_why() -> None:
    with pytest.raises(InputError, match=r"no sample to evaluate: a\.ply: cut short"):
        evaluate_clouds([Rejected("a.ply", "cut short")], clouds(3))
    with pytest.raises(InputError, match="no reference to evaluate"):
        evaluate_clouds(clouds(3), [])


def test_figures_without_rows_are_one_file() -> None:
    assert set(Figures(categories={}).files()) == {"figures.json"}
