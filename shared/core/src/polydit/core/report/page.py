"""A page of sections as one HTML file that opens from disk and asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from polydit.core.jobs.files import atomic_file, naming_write_errors
from polydit.core.report.markup import Content, Markup, join, tag
from polydit.core.report.sections import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One report.

    Args:
        title: Name of the report.
        subtitle: One line under it.
        sections: Its parts, in order.
        footer: Lines at the end: licences, intended use.
    """

    title: str
    subtitle: Content = ""
    sections: Sequence[Section] = ()
    footer: Sequence[Content] = ()

    def html(self) -> str:
        """The whole document."""
        scripts = [_asset("page.js"), _asset("viewer.js")]
        head = join(
            Markup('<meta charset="utf-8">'),
            # Only our two scripts may run, by their hashes, and nothing may be fetched: a second wall behind
            # the escaping of every text.
            tag("meta", http_equiv="Content-Security-Policy", content=_policy(scripts)),
            Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Markup('<meta name="color-scheme" content="light dark">'),
            tag("title", self.title),
            tag("style", Markup(_asset("style.css"))),
        )
        body = join(
            tag("a", "Skip to the contents", href="#contents", class_="skip"),
            self._header(),
            tag("main", *(_section(k, section) for k, section in enumerate(self.sections)), id="contents"),
            tag("footer", *(tag("p", line) for line in self.footer)),
            *(tag("script", Markup(script)) for script in scripts),
        )
        return f"<!DOCTYPE html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"

    def write(self, path: Path) -> Path:
        """Writes the document; a reader never sees half of it.

        Args:
            path: The file; its folder must exist.

        Returns:
            The same path.

        Raises:
            PolyditError: The system refuses to write there.
        """
        with naming_write_errors(path.parent), atomic_file(path) as file:
            # A lone surrogate, possible in a file's name, cannot be UTF-8.
            file.write(self.html().encode("utf-8", errors="xmlcharrefreplace"))
        return path

    def _header(self) -> Markup:
        links = (tag("a", section.title, href=f"#section-{k}") for k, section in enumerate(self.sections))
        return tag(
            "header", tag("h1", self.title), tag("p", self.subtitle, class_="subtitle"),
            tag("nav", *links, aria_label="Sections"),
            Markup("<noscript><p>The sliders, the 3D views and the sorting of tables need JavaScript.</p></noscript>"),
        )  # fmt: skip


def _section(number: int, section: Section) -> Markup:
    name = f"section-{number}"
    heading = tag("h2", section.title, id=name)
    return tag("section", heading, section.body(), aria_labelledby=name)


def _asset(name: str) -> str:
    return (resources.files("polydit.core.report") / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}"
