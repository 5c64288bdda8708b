"""The page in a real browser: it draws, it turns, it asks nobody for anything."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from polydit.core.report import Card, Gallery, Page, Scene, Table, viewer
from polydit.core.testing.browser import Browser

FRAME = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
PICTURE = "document.querySelector('.viewer canvas').toDataURL()"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 views: molecules with all orders of bonds, a cell, a cloud of 4096 points, and an empty one."""
    chain = np.array([[0.0, 0, 0], [1.2, 0, 0], [1.8, 1.1, 0], [3.1, 1.2, 0.6]])
    molecule = Scene(
        points=chain,
        radii=[0.4, 0.4, 0.3, 0.3],
        colours=["#909090", "#909090", "#ff0d0d", "#3050f8"],
        bonds=[(0, 1, 3.0), (1, 2, 2.0), (2, 3, 1.5)],
    )
    crystal = Scene(
        points=np.eye(3) * 2, radii=0.5, colours="#ab5cf2", bonds=[(0, 1, 1.0)], cell=np.eye(3) * 4
    )
    cloud = Scene(points=np.random.default_rng(0).normal(size=(4096, 3)), radii=0.03, colours="#4585d6")
    nothing = Scene(points=np.zeros((0, 3)), radii=1.0, colours="#000000")
    scenes = [molecule, crystal, cloud, nothing, *[molecule, crystal] * 22]
    cards = [Card(title=f"view {k}", pictures=[viewer(s, label=f"view {k}")]) for k, s in enumerate(scenes)]
    table = Table(title="Table", columns=("name", "n"), rows=[("b", 10), ("a", 9), ("c", 100)])
    gallery = Gallery(title="Views", cards=cards)
    return Page(title="Views", sections=[gallery, table]).write(
        tmp_path_factory.mktemp("page") / "report.html"
    )


def picture(browser: Browser) -> str:
    """What the first view shows, after the frames that are due."""
    assert browser.evaluate(FRAME)
    shown: str = browser.evaluate(PICTURE)
    return shown


def middle_of_the_first_view(browser: Browser) -> tuple[float, float]:
    box = browser.evaluate("(({x, y, width, height}) => [x + width / 2, y + height / 2])("
                           "document.querySelector('.viewer canvas').getBoundingClientRect())")  # fmt: skip
    return box[0], box[1]


def test_views_turn_zoom_and_reset_and_nothing_is_fetched(browser: Browser, page: Path) -> None:
    browser.open(page)
    at_first, (x, y) = picture(browser), middle_of_the_first_view(browser)

    browser.wheel((x, y), 240)  # not clicked yet: the wheel belongs to the page
    browser.wait_for("window.scrollY > 200")
    assert picture(browser) == at_first
    browser.evaluate("window.scrollTo({top: 0, behavior: 'instant'})")

    browser.drag((x, y), (x + 60, y + 20))
    assert picture(browser) != at_first
    browser.double_click((x, y))
    assert picture(browser) == at_first

    browser.wheel((x, y), -240)
    browser.wait_for(f"{PICTURE} !== {at_first!r}")
    browser.key("0")
    assert picture(browser) == at_first
    for key in ("ArrowLeft", "ArrowUp", "+"):
        browser.key(key)
        assert picture(browser) != at_first, key
        browser.key("0")
        assert picture(browser) == at_first, key

    assert browser.complaints == []
    assert browser.requests == [page.resolve().as_uri()]


def test_every_view_is_drawn_when_it_is_scrolled_to(browser: Browser, page: Path) -> None:
    drawn = """[...document.querySelectorAll('.viewer canvas')].filter((canvas) => {
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return data.some((value) => value > 0);
    }).length"""
    browser.open(page)
    for place in (0, 0.25, 0.5, 0.75, 1):
        top = f"{place} * document.body.scrollHeight"
        browser.evaluate(f"window.scrollTo({{top: {top}, behavior: 'instant'}})")
        browser.evaluate(FRAME)
    browser.wait_for(f"{drawn} === 47")  # all but the empty one
    assert browser.complaints == []


def test_dark_pages_are_dark_and_views_follow_a_change(browser: Browser, page: Path) -> None:
    from PIL import Image

    browser.open(page, height=400)
    brightness, views = [], []
    for dark in (False, True):
        browser.prefer(dark=dark)
        views.append(picture(browser))
        shades = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
        assert shades.std() > 10  # something is to be seen
        brightness.append(shades.mean())
    assert brightness[0] > 200
    assert brightness[1] < 60
    assert views[0] != views[1]  # what is far fades into another background


def test_the_view_in_use_turns_dark_with_the_page(browser: Browser, page: Path) -> None:
    from PIL import Image

    browser.open(page, height=400)
    x, y = middle_of_the_first_view(browser)
    browser.evaluate("document.querySelector('.viewer canvas').focus()")
    browser.key("ArrowLeft")
    brightness = []
    for dark in (False, True):
        browser.prefer(dark=dark)
        picture(browser)
        shown = Image.open(io.BytesIO(browser.screenshot())).convert("L")
        brightness.append(shown.getpixel((round(x), round(y) - 95)))  # above the molecule
    assert brightness[0] > 200
    assert brightness[1] < 60


def test_a_table_sorts_with_the_keyboard(browser: Browser, page: Path) -> None:
    rows = "[...document.querySelectorAll('section:last-of-type tbody tr')]"
    column = f"{rows}.map((row) => row.cells[0].textContent).join()"
    browser.open(page)
    browser.evaluate("[...document.querySelectorAll('th button')].at(-1).focus()")
    browser.key("Enter")
    browser.wait_for(f"{column} === 'a,b,c'")  # 9, 10, 100: by number
    browser.key("Enter")
    browser.wait_for(f"{column} === 'c,b,a'")
    assert browser.evaluate("document.querySelector('th[aria-sort]').ariaSort") == "descending"
    assert browser.complaints == []


def test_a_scene_that_is_broken_costs_one_view(browser: Browser, tmp_path: Path, page: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace('"points":[[0.0,', '"points":[[0.0.0,', 1))
    browser.open(broken)
    assert "cannot be drawn" in browser.evaluate("document.querySelector('.viewer').textContent")
    assert browser.evaluate("document.querySelectorAll('.viewer canvas').length") == 47
    assert len(browser.complaints) == 1


def test_a_script_that_is_not_ours_does_not_run(browser: Browser, tmp_path: Path, page: Path) -> None:
    attacked = tmp_path / "attacked.html"
    attacked.write_text(page.read_text().replace("</main>", "<script>window.broken = true</script></main>"))
    browser.open(attacked)
    assert browser.evaluate("window.broken === undefined")
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)
