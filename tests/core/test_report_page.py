"""The page: whole, alone, escaped, and readable without eyes or mouse."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from polydit.core.errors import PolyditError
from polydit.core.report import (
    Badge,
    Card,
    Figure,
    Figures,
    Gallery,
    Headline,
    Page,
    Plot,
    Plots,
    Scene,
    Table,
    Text,
    bar_plot,
    histogram,
    line_plot,
    viewer,
)
from polydit.core.report.markup import Markup, escape, tag
from polydit.core.testing.pages import page_problems

EVIL = '<script>alert("1")</script><img src=x onerror=alert(2)>\'"&</style></title>--><!--'


def page_of_everything(text: str = "plain") -> Page:
    """Every kind of section with the same text wherever a user's text can stand."""
    scene = Scene(points=np.eye(3), radii=0.3, colours="#336699", bonds=[(0, 1, 2.0)], cell=np.eye(3) * 3)
    numbers = {f"{text} a": {3: 1, 4: 5}, "b": {4: 2}}
    plots = [
        Plot(
            picture=histogram(numbers, title=text, x_label=text),
            columns=(text, "n"),
            rows=[(text, 1), ("b", 2.5)],
        ),
        Plot(picture=bar_plot({text: {text: 2, "O": 1}}, title=text, x_label=text)),
        Plot(picture=line_plot([0, 1, 2], {text: [3.0, 2.0, 1.0]}, x_label=text, y_label=text)),
    ]
    card = Card(
        title=text,
        pictures=[viewer(scene, label=text)],
        facts=[(text, text), ("n", 3)],
        badges=[Badge(text, "good"), Badge(text, "bad")],
        links=[(text, f"items/{text}.sdf")],
    )
    figure = Figure(name=text, value=0.5, low=0.4, high=0.6, count=10, method=text)
    return Page(
        title=text,
        subtitle=text,
        sections=[
            Headline(text, [(text, text)]),
            Figures(title=text, figures=[figure], note=text),
            Plots(title=text, plots=plots, note=text),
            Gallery(title=text, cards=[card], note=text),
            Table(title=text, columns=(text, "n"), rows=[(text, 1), (None, 2)], note=text),
            Text(text, [text]),
        ],
        footer=[text],
    )


@pytest.mark.parametrize("text", ["plain", EVIL, "ångström 水", ""])
def test_the_page_is_well_formed_and_names_nothing_elsewhere(text: str) -> None:
    assert page_problems(page_of_everything(text).html()) == []


def test_text_of_users_never_becomes_a_tag() -> None:
    harmless, evil = page_of_everything().html(), page_of_everything(EVIL).html()
    for name in ("script", "img", "style", "title"):
        assert evil.lower().count(f"<{name}") == harmless.lower().count(f"<{name}"), name
    assert EVIL not in evil
    assert "onerror=alert(2)&gt;" in evil  # it is still there to be read


def test_a_link_to_a_file_cannot_run_a_script() -> None:
    card = Card(title="x", links=[("SDF", "javascript:alert(1)"), ("CIF", "items/a b#c.cif")])
    assert 'href="javascript%3Aalert%281%29"' in card.body()
    assert 'href="items/a%20b%23c.cif"' in card.body()


def test_only_our_scripts_may_run_and_nothing_may_be_fetched() -> None:
    html = page_of_everything().html()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy
    assert "default-src &#x27;none&#x27;" in policy[1]
    assert policy[1].count("sha256-") == 2
    assert "unsafe-inline" not in policy[1].split("script-src")[1]


def test_a_name_that_is_no_unicode_can_be_written(tmp_path: Path) -> None:
    page = Page(title="file-\udcff.sdf").write(tmp_path / "report.html")
    assert "file-&#56575;.sdf" in page.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolyditError, match="absent"):
        Page(title="x").write(tmp_path / "absent" / "report.html")


def test_an_empty_page_is_small() -> None:
    assert len(Page(title="x").html()) < 40_000


def test_numbers_sort_by_their_value_not_by_their_text() -> None:
    table = Table(title="t", columns=("n",), rows=[(3,), (1_000,), ("text",)]).body()
    assert re.findall(r'data-key="(\d+)"', table) == ["3", "1000"]
    figure = Figure(name="f", value=0.5, low=0.25, high=0.75, count=1200, method="m")
    body = Figures(title="t", figures=[figure]).body()
    assert 'data-key="0.5">50.0 %<' in body
    assert 'data-key="1200">1,200<' in body
    assert "25.0 to 75.0 %" in body


def test_markup_is_text_unless_it_says_otherwise() -> None:
    assert tag("p", "a<b", Markup("<i>c</i>"), None, 3) == "<p>a&lt;b<i>c</i>3</p>"
    assert tag("a", href='"><x', class_="k", aria_label=None, hidden=True, draggable=False) == (
        '<a href="&quot;&gt;&lt;x" class="k" hidden></a>'
    )
    assert escape(escape("<")) == "&lt;"


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ("<p><b></p></b>", "closes"),
        ("<div>", "never closed"),
        ('<img alt="x" src="https://example.org/a.png">', "elsewhere"),
        ('<script src="//example.org/a.js"></script>', "elsewhere"),
        ("<style>@import 'x.css'</style>", "style sheet"),
        ('<p style="background:url(x)"></p>', "style"),
        ('<a href="#nowhere">x</a>', "no element"),
        ('<p id="a"></p><p id="a"></p>', "twice"),
        ("<canvas></canvas>", "no text"),
        ("<h1>a</h1><h3>b</h3>", "follows"),
        ('<p onclick="x()"></p>', "script"),
    ],
)
def test_the_checker_sees_what_it_looks_for(html: str, problem: str) -> None:
    assert any(problem in found for found in page_problems(html))
