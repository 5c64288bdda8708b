"""Clouds of points: what is refused, what the browser gets, and that it draws and turns thousands of them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.core.report import RAMP, Card, Gallery, Page, PointScene, Scene, Sheet, along_the_ramp, viewer
from polydit.core.report.markup import tag
from polydit.core.testing.browser import Browser
from polydit.core.testing.pages import page_problems

POINTS = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
COLOURS = np.zeros(500, dtype=np.uint8)


def numbers(content: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(content["points"]), "<i2").reshape(-1, 3) * content["step"]


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_browser_gets_the_points_about_the_middle_of_their_box(unit: float) -> None:
    points = (POINTS + 3.0).astype(np.float64) * unit
    content = json.loads(PointScene(points=points, colours=COLOURS).to_json())
    middle = (points.min(0) + points.max(0)) / 2
    np.testing.assert_allclose(numbers(content), points - middle, atol=1e-4 * unit * 8)
    assert base64.b64decode(content["colours"]) == COLOURS.tobytes()
    assert 0.0 < content["radius"] < 0.2 * np.ptp(points)


def test_many_points_are_small_and_cost_little() -> None:
    few, many = (json.loads(PointScene(points=POINTS[:n], colours=COLOURS[:n]).to_json()) for n in (50, 500))
    assert many["radius"] / many["step"] < few["radius"] / few["step"]
    points = np.random.default_rng(0).normal(size=(4096, 3))
    scene = PointScene(points=points, colours=np.zeros(4096, dtype=np.uint8))
    assert len(viewer(scene, label="cloud")) < 40_000


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"points": np.full((500, 3), np.nan)}, "not finite"),
        ({"radius": float("inf")}, "not finite"),
        ({"colours": COLOURS[:9]}, "9 colours for 500 points"),
        ({"colours": COLOURS + np.uint8(200)}, "has no colour"),
        ({"palette": ["red"]}, "no colour"),
        ({"palette": ["#00000</script>"]}, "no colour"),
    ],
)
def test_a_scene_that_could_not_be_drawn_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        PointScene(**{"points": POINTS, "colours": COLOURS, **change})


def test_the_empty_cloud_and_that_of_one_place_are_scenes() -> None:
    nothing = PointScene(points=np.zeros((0, 3)), colours=COLOURS[:0])
    assert json.loads(nothing.to_json())["points"] == ""
    one_place = PointScene(points=np.ones((3, 3)), colours=COLOURS[:3])
    assert not numbers(json.loads(one_place.to_json())).any()


def test_the_ramp_goes_from_the_lowest_to_the_highest() -> None:
    assert along_the_ramp(np.array([2.0, -1.0, 0.5])).tolist() == [
        len(RAMP) - 1,
        0,
        round((len(RAMP) - 1) / 2),
    ]
    assert len(set(along_the_ramp(np.ones(4)))) == 1
    assert len(along_the_ramp(np.zeros(0))) == 0
    assert len(set(RAMP)) == len(RAMP)


# ---------------------------------------------------------------------------------------------------------
# In a real browser.

FRAME = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ball of 4096 points, some atoms, a cloud without points; and a sheet of pictures."""
    ball = np.random.default_rng(1).normal(size=(4096, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    scenes: list[Scene | PointScene] = [
        PointScene(points=ball, colours=along_the_ramp(ball[:, 1])),
        Scene(points=np.eye(3), radii=0.3, colours="#aa2222"),
        PointScene(points=np.zeros((0, 3)), colours=COLOURS[:0]),
    ]
    cards = [Card(title=f"view {k}", pictures=[viewer(s, label=f"view {k}")]) for k, s in enumerate(scenes)]
    still = tag("img", src="data:image/png;base64,", alt="nothing")
    sections = [Gallery(title="Views", cards=cards), Sheet(title="Sheet", pictures=[(still, "a name")])]
    return Page(title="Views", sections=sections).write(tmp_path_factory.mktemp("page") / "report.html")


def test_the_page_is_sound(page: Path) -> None:
    assert page_problems(page.read_text()) == []


def test_points_are_drawn_turn_and_follow_a_dark_page(browser: Browser, page: Path) -> None:
    browser.open(page)
    view = "document.querySelector('.viewer canvas')"
    assert browser.evaluate(FRAME)
    share = browser.evaluate(f"""(() => {{
        const canvas = {view}, data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        let painted = 0;
        for (let k = 3; k < data.length; k += 4) painted += data[k] > 0;
        return painted / (canvas.height * canvas.height);
    }})()""")
    assert 0.2 < share < 0.7  # a disc that fills most of the height
    pictures = [browser.evaluate(f"{view}.toDataURL()")]
    browser.evaluate(f"{view}.focus()")
    for key in ("ArrowLeft", "+", "0"):
        browser.key(key)
        browser.evaluate(FRAME)
        pictures.append(browser.evaluate(f"{view}.toDataURL()"))
    assert len(set(pictures[:3])) == 3 and pictures[3] == pictures[0]
    browser.prefer(dark=True)
    browser.evaluate(FRAME)
    assert browser.evaluate(f"{view}.toDataURL()") != pictures[0]
    assert browser.complaints == [] and browser.requests == [page.resolve().as_uri()]
