"""HTML and SVG as escaped strings: whatever is not `Markup` is text and cannot become a tag."""

from __future__ import annotations

import html
from typing import TypeAlias


class Markup(str):
    """A string that is HTML already and is not escaped again."""

    __slots__ = ()


Content: TypeAlias = str | int | float | None
Attribute: TypeAlias = str | int | float | bool | None

_VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})


def escape(content: Content) -> Markup:
    """Turns text into HTML; `Markup` passes unchanged and None is empty."""
    if isinstance(content, Markup):
        return content
    return Markup("" if content is None else html.escape(str(content)))


def join(*contents: Content) -> Markup:
    """Escapes each content and puts them side by side."""
    return Markup("".join(escape(content) for content in contents))


def tag(name: str, *children: Content, **attributes: Attribute) -> Markup:
    """Builds one element: `tag("a", "text", href="#top", aria_label="Up", class_="quiet")`.

    Args:
        name: Name of the element.
        children: Contents, escaped unless they are `Markup`.
        attributes: `class_` becomes class and `aria_label` aria-label. True gives a bare attribute; None and
            False leave the attribute out.

    Returns:
        The element.
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{join(*children)}</{name}>")


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'
