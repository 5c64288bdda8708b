"""What every page we write must keep: balanced tags, nothing from elsewhere, texts for a screen reader."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"}
)
_ADDRESSES = frozenset(
    {"src", "href", "xlink:href", "srcset", "poster", "data", "action", "formaction", "ping"}
)
_NAMED = frozenset(
    {"canvas", "svg", "img"}
)  # elements that need a text or must be hidden from screen readers
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
_INLINE = re.compile(r"data:image/", re.IGNORECASE)


def page_problems(html: str) -> list[str]:
    """What is wrong with a page that must open from disk without a network; empty if nothing is.

    Checked are: every element is closed in order; ids are unique and links within the page lead somewhere; no
    attribute and no style sheet names anything outside of the folder; pictures and canvases have a text;
    headings do not skip a level.
    """
    checker = _Checker()
    checker.feed(html)
    checker.close()
    return checker.problems + checker.at_the_end()


class _Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self._open: list[str] = []
        self._ids: set[str] = set()
        self._anchors: set[str] = set()
        self._level = 0

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        content = dict(attributes)
        if name not in _VOID:
            self._open.append(name)
        if len(content) != len(attributes):
            self.problems.append(f"<{name}> repeats an attribute")
        self._check_addresses(name, content)
        self._check_text(name, content)
        if re.fullmatch("h[1-6]", name):
            if int(name[1]) > self._level + 1:
                self.problems.append(f"<{name}> follows <h{self._level}>")
            self._level = int(name[1])
        if (own := content.get("id")) is not None:
            if own in self._ids:
                self.problems.append(f"id {own!r} occurs twice")
            self._ids.add(own)

    def _check_addresses(self, name: str, attributes: dict[str, str | None]) -> None:
        for key in _ADDRESSES & attributes.keys():
            address = (attributes[key] or "").strip()
            if address.startswith("#"):
                self._anchors.add(address[1:])
            elif _ELSEWHERE.match(address) and not _INLINE.match(address):
                self.problems.append(f"<{name} {key}> leads elsewhere: {address[:80]}")
        for key, value in attributes.items():
            if key.startswith("on"):
                self.problems.append(f"<{name}> has a script in {key}")
            if key == "style" and "url(" in (value or ""):
                self.problems.append(f"<{name}> loads something in its style")

    def _check_text(self, name: str, attributes: dict[str, str | None]) -> None:
        hidden = attributes.get("aria-hidden") == "true"
        if name in _NAMED and not hidden and not (attributes.get("aria-label") or attributes.get("alt")):
            self.problems.append(f"<{name}> has no text for those who cannot see it")

    def handle_endtag(self, name: str) -> None:
        if not self._open or self._open[-1] != name:
            self.problems.append(
                f"</{name}> at line {self.getpos()[0]} closes {self._open[-1:] or 'nothing'}"
            )
        else:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["style"] and re.search(r"@import|url\(", data):
            self.problems.append("the style sheet loads something")

    def at_the_end(self) -> list[str]:
        unclosed = [f"<{name}> is never closed" for name in self._open]
        return unclosed + [f"no element has the id {name!r}" for name in sorted(self._anchors - self._ids)]
