"""Plots show the numbers they are given."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from polydit.core.report import bar_plot, histogram, line_plot

SVG = "{http://www.w3.org/2000/svg}"


def paths(picture: str, paint: str) -> list[list[tuple[float, float]]]:
    """Corners of the coloured paths that have a stroke or a fill, in the order of drawing."""
    found = []
    for element in ElementTree.fromstring(picture).iter(f"{SVG}path"):
        if element.get(paint, "").startswith("#"):
            course = element.attrib["d"]
            found.append([(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.-]+) ([\d.-]+)", course)])
    return found


def texts(picture: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_histogram_draws_shares_of_each_series_by_itself() -> None:
    picture = histogram({"ours": {1: 3, 2: 1}, "theirs": {2: 1000, 3: 3000}}, title="T", x_label="atoms")
    (ours,), (theirs,) = paths(picture, "fill"), paths(picture, "stroke")
    floor = ours[0][1]
    ours_heights = [floor - y for _, y in ours[1:-1:2]]
    their_heights = [floor - y for _, y in theirs[1:-1:2]]
    assert ours_heights[2] == 0  # nobody of ours has three
    assert ours_heights[0] == pytest.approx(3 * ours_heights[1], rel=0.02)
    assert their_heights == pytest.approx(ours_heights[::-1], abs=0.2)  # 25 % and 75 %, the other way round
    assert [x for x, _ in ours] == sorted(x for x, _ in ours)
    assert any("ours" in text and "theirs" in text for text in texts(picture))


def test_a_wide_histogram_is_binned_without_losing_any() -> None:
    picture = histogram({"s": dict.fromkeys(range(1000), 1)}, title="T", x_label="atoms")
    (outline,) = paths(picture, "fill")
    heights = [outline[0][1] - y for _, y in outline[1:-1:2]]
    assert len(heights) == 59  # 17 numbers to a bin
    assert heights[:-1] == pytest.approx([heights[0]] * 58, abs=0.2)


@pytest.mark.parametrize("counts", [{}, {"a": {}}, {"a": {}, "b": {5: 2}}, {"a": {7: 0}}])
def test_a_histogram_of_nothing_is_a_picture(counts: dict[str, dict[int, float]]) -> None:
    picture = histogram(counts, title="T", x_label="x")
    assert ElementTree.fromstring(picture).tag == f"{SVG}svg"
    assert "nan" not in picture


def test_bars_name_every_category_once() -> None:
    picture = bar_plot({"a": {"H": 2, "C": 1}, "b": {"O": 5}}, title="T", x_label="element")
    assert [text for text in texts(picture) if text in ("H", "C", "O")] == ["H", "C", "O"]
    assert len(paths(picture, "fill")) == 2
    assert "nan" not in bar_plot({}, title="T", x_label="x")


def test_a_curve_leaves_out_what_is_no_number() -> None:
    values = [4.0, math.nan, 2.0, math.inf, 1.0]
    picture = line_plot([0, 10, 20, 30, 40], {"loss": values}, x_label="step", y_label="loss")
    (line,) = paths(picture, "stroke")
    assert len(line) == 3
    assert line[0][1] < line[1][1] < line[2][1]  # a loss that falls, downwards
    assert line[1][0] - line[0][0] == pytest.approx(line[2][0] - line[1][0], abs=0.2)


def test_a_logarithmic_curve_has_equal_steps_for_equal_factors() -> None:
    picture = line_plot(
        [0, 1, 2, 3], {"l": [100.0, 10.0, 1.0, 0.0]}, x_label="step", y_label="loss", log_y=True
    )
    (line,) = paths(picture, "stroke")
    assert len(line) == 3  # zero has no logarithm
    assert line[1][1] - line[0][1] == pytest.approx(line[2][1] - line[1][1], abs=0.2)
    assert {"1", "10", "100"} <= set(texts(picture))


def test_a_long_curve_stays_small_and_keeps_its_spike() -> None:
    values = [1.0] * 100_000
    values[54_321] = 50.0
    picture = line_plot(range(100_000), {"loss": values}, x_label="step", y_label="loss")
    assert len(picture) < 40_000
    (band,) = paths(picture, "fill")
    heights = [y for _, y in band]
    assert min(heights) < 60 < 200 < max(heights)


def test_names_are_escaped_and_the_picture_stands_alone() -> None:
    evil = "<b>&'\""
    for picture in (
        histogram({evil: {1: 1}, "x": {1: 1}}, title=evil, x_label=evil),
        bar_plot({evil: {evil: 1}, "x": {}}, title=evil, x_label=evil),
        line_plot([0, 1], {evil: [1.0, 2.0], "x": [1.0, 1.0]}, x_label=evil, y_label=evil, title=evil),
    ):
        root = ElementTree.fromstring(picture)
        assert root.find(f"{SVG}title") is not None
        assert any(evil in text for text in texts(picture))
        assert not list(root.iter(f"{SVG}b"))
