"""Images of a page: inline, in a row, and two under a slider that mouse and keys move."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest

from polydit.core.report import Card, Gallery, Page, compare, inline_image, strip
from polydit.core.testing.browser import Browser
from polydit.core.testing.pages import page_problems

EVIL = '"><script>alert(1)</script>'


def flat(red: int, green: int, blue: int, kind: str = "PNG") -> bytes:
    from PIL import Image

    handle = io.BytesIO()
    Image.new("RGB", (40, 30), (red, green, blue)).save(handle, kind)
    return handle.getvalue()


def page_of(names: tuple[str, str] = ("before", "after")) -> Page:
    """A red image to the left, a blue one to the right."""
    before, after = (
        inline_image(flat(255, 0, 0), label=names[0]),
        inline_image(flat(0, 0, 255), label=names[1]),
    )
    pictures = [compare(before, after, names=names), strip([(before, names[0]), (after, names[1])])]
    return Page(title="Images", sections=[Gallery(title="Cards", cards=[Card(title="a", pictures=pictures)])])


@pytest.mark.parametrize("names", [("before", "after"), (EVIL, "H&E"), ("", "x")])
def test_the_page_is_well_formed(names: tuple[str, str]) -> None:
    html = page_of(names).html()
    problems = [problem for problem in page_problems(html) if names[0] or "has no text" not in problem]
    assert problems == [] and "<script>alert" not in html


def test_an_image_says_what_kind_it_is() -> None:
    assert 'src="data:image/png;base64,' in inline_image(flat(1, 2, 3), label="x")
    assert 'src="data:image/jpeg;base64,' in inline_image(flat(1, 2, 3, "JPEG"), label="x")


def test_a_slider_has_a_name_for_those_who_cannot_see_it() -> None:
    html = page_of(("H&E", "stain")).html()
    assert re.search(r'<input type="range"[^>]*aria-label="H&amp;E to the left, stain to the right"', html)


def seen(browser: Browser, share: float) -> str:
    """Which image shows at a share of the slider's width."""
    from PIL import Image

    x, y = place(browser, share)
    pixels = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))
    red, _, blue = pixels[round(y), round(x)]
    return "before" if red > blue else "after"


def place(browser: Browser, share: float) -> tuple[float, float]:
    box = browser.evaluate("(({x, y, width, height}) => [x, y, width, height])("
                           "document.querySelector('.compare .stack').getBoundingClientRect())")  # fmt: skip
    return box[0] + share * box[2], box[1] + 0.3 * box[3]


def test_the_slider_follows_the_mouse_and_the_keys(browser: Browser, tmp_path: Path) -> None:
    browser.open(page_of().write(tmp_path / "page.html"))
    assert [seen(browser, share) for share in (0.1, 0.4, 0.6, 0.9)] == ["before", "before", "after", "after"]
    browser.drag(place(browser, 0.5), place(browser, 0.2))
    assert [seen(browser, share) for share in (0.1, 0.3)] == ["before", "after"]
    for _ in range(20):
        browser.key("ArrowRight")
    assert [seen(browser, share) for share in (0.3, 0.5)] == ["before", "after"]
    browser.key("End")
    browser.wait_for("document.querySelector('.compare input').value === '100'")
    assert seen(browser, 0.95) == "before"
    assert browser.complaints == []
