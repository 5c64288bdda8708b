"""Scenes: what is refused, and what the browser gets."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from polydit.core.errors import InputError
from polydit.core.report import Scene, viewer

POINTS = np.array([[0.0, 0.0, 0.0], [1.23456789, -0.00000001, 2.0]])


def test_the_browser_gets_the_scene_with_few_digits() -> None:
    scene = Scene(
        points=POINTS,
        radii=[0.3, 0.4],
        colours=["#ff0000", "#00ff00"],
        bonds=[(0, 1, 1.5)],
        cell=np.eye(3) * 4,
    )
    content = json.loads(scene.to_json())
    assert content["points"] == [[0, 0, 0], [1.235, 0, 2]]
    assert content["radii"] == [0.3, 0.4]
    assert content["bonds"] == [[0, 1, 1.5]]
    assert content["cell"] == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert content["rotation"] is None
    assert "-0.0" not in scene.to_json()


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e6])
def test_digits_follow_the_size_of_the_scene(unit: float) -> None:
    content = json.loads(Scene(points=POINTS * unit, radii=0.3 * unit, colours="#000000").to_json())
    np.testing.assert_allclose(np.array(content["points"]) / unit, POINTS, atol=1e-3)
    assert content["radii"] / unit == pytest.approx(0.3, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"points": np.array([[0.0, np.nan, 0.0], [0.0, 0.0, 0.0]])}, "points .* not finite"),
        ({"radii": [0.1, float("inf")]}, "radii .* not finite"),
        ({"cell": np.full((3, 3), np.nan)}, "cell .* not finite"),
        ({"radii": [0.1]}, "1 radii for 2 points"),
        ({"colours": ["#000000"] * 3}, "3 colours for 2 points"),
        ({"colours": "red"}, "no colour"),
        ({"colours": "#00000</script>"}, "no colour"),
        ({"bonds": [(0, 2, 1.0)]}, "names no point"),
        ({"bonds": [(-1, 0, 1.0)]}, "names no point"),
    ],
)
def test_a_scene_that_could_not_be_drawn_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Scene(**{"points": POINTS, "radii": 0.1, "colours": "#000000", **change})


def test_the_empty_scene_is_a_scene() -> None:
    assert json.loads(Scene(points=np.zeros((0, 3)), radii=1.0, colours="#000000").to_json())["points"] == []


def test_a_view_can_be_reached_and_says_what_it_is() -> None:
    element = viewer(Scene(points=POINTS, radii=0.1, colours="#000000"), label='3D "structure"')
    assert re.search(r'<canvas tabindex="0" role="img" aria-label="3D &quot;structure&quot;\. Drag', element)


def test_a_cloud_of_4096_points_costs_little() -> None:
    points = np.random.default_rng(0).normal(size=(4096, 3))
    assert len(viewer(Scene(points=points, radii=0.02, colours="#4585d6"), label="cloud")) < 110_000
