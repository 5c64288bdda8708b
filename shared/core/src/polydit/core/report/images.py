"""Pictures of a page: images inline, one laid over another under a slider, several in a row."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from polydit.core.report.markup import Content, Markup, tag


def inline_image(content: bytes, *, label: str) -> Markup:
    """An image file as an element of a page, which needs no other file then.

    Args:
        content: A PNG, or a JPEG.
        label: What it shows, for those who cannot see it.
    """
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return tag("img", src=f"data:image/{kind};base64,{base64.b64encode(content).decode()}", alt=label)


def compare(before: Markup, after: Markup, *, names: tuple[str, str]) -> Markup:
    """Two images of one place under a slider: the first is seen on its left, the second on its right.

    The slider moves by mouse, by touch, and by the arrow keys; the page around it brings its script once.

    Args:
        before: An image element.
        after: Another, of the same proportions.
        names: What each shows, in a word or two.
    """
    left, right = names
    slider = tag(
        "input", type="range", min=0, max=100, value=50, step=1, aria_label=f"{left} to the left, {right} to the right"
    )  # fmt: skip
    ends = tag("p", tag("span", left), tag("span", right), class_="ends", aria_hidden="true")
    over = tag("div", before, class_="over")
    return tag(
        "div",
        tag("div", after, over, tag("div", class_="line"), slider, class_="stack"),
        ends,
        class_="compare",
    )


def strip(pictures: Sequence[tuple[Markup, Content]]) -> Markup:
    """Small images in a row.

    Args:
        pictures: Image elements, each with a line under it.
    """
    return tag(
        "div", *(tag("div", picture, tag("p", line)) for picture, line in pictures), class_="strip"
    )  # fmt: skip
