"""The parts of a page. Each is a small object with a title and a body; all text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable
from urllib.parse import quote

from polydit.core.report.markup import Content, Markup, join, tag


@runtime_checkable
class Section(Protocol):
    """Anything with a title and a body can stand on a page."""

    @property
    def title(self) -> str:
        """Heading; also the name in the list of contents."""

    def body(self) -> Markup:
        """What stands under the heading."""


class Value(NamedTuple):
    """A cell that shows one text and sorts by a number."""

    text: str
    key: int | float


Cell: TypeAlias = Content | Value


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs."""

    title: str
    paragraphs: Sequence[Content]

    def body(self) -> Markup:
        """One element per paragraph."""
        return join(*(tag("p", paragraph) for paragraph in self.paragraphs))


@dataclass(frozen=True, slots=True)
class Headline:
    """A row of the few numbers to see first: (value, what it is)."""

    title: str
    numbers: Sequence[tuple[str, str]]

    def body(self) -> Markup:
        """A list of terms and values."""
        items = (tag("div", tag("dt", name), tag("dd", value)) for value, name in self.numbers)
        return tag("dl", *items, class_="headline")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number with the method that gives it its meaning.

    Args:
        name: What was measured.
        value: The number; shown as a percentage when it is a share.
        method: How it was measured, by the field's name, with the settings that matter.
        count: Over how many items.
        low: Lower end of the interval, if there is one.
        high: Upper end of the interval.
        share: The number lies in 0..1.
    """

    name: str
    value: int | float
    method: str
    count: int
    low: int | float | None = None
    high: int | float | None = None
    share: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The table of measured numbers."""

    title: str
    figures: Sequence[Figure]
    note: str = ""

    def body(self) -> Markup:
        """A table with a small picture of each interval."""
        rows = [
            [f.name, Value(_shown(f), f.value), _interval(f), Value(f"{f.count:,}", f.count), f.method]
            for f in self.figures
        ]
        columns = ("Figure", "Value", "95 % interval", "Of", "Method")
        return Table(title=self.title, columns=columns, rows=rows, note=self.note).body()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that a click on a column's heading sorts.

    Args:
        title: Heading.
        columns: Names of the columns.
        rows: Cells; a number or a `Value` sorts by its number.
        note: A sentence under the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def body(self) -> Markup:
        """The table in a box that scrolls sideways on a narrow screen."""
        buttons = [tag("button", name, type="button") for name in self.columns]
        table = _table(buttons, self.rows, tag("caption", self.title))
        note = tag("p", self.note, class_="note") if self.note else None
        box = tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=self.title)
        return join(box, note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A picture and the numbers behind it.

    Args:
        picture: SVG of `polydit.core.report.plots`.
        columns: Names of the columns of the numbers.
        rows: The numbers; none leaves the table out.
    """

    picture: Markup
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()

    def body(self) -> Markup:
        """The picture, and the numbers for whoever cannot see it."""
        numbers = None
        if self.rows:
            box = tag("div", _table(self.columns, self.rows), class_="scroll", tabindex=0)
            numbers = tag("details", tag("summary", "Numbers"), box)
        return tag("figure", self.picture, numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plots:
    """Plots side by side."""

    title: str
    plots: Sequence[Plot]
    note: str = ""

    def body(self) -> Markup:
        """A grid of plots."""
        grid = tag("div", *(plot.body() for plot in self.plots), class_="plots")
        return join(grid, tag("p", self.note, class_="note") if self.note else None)


@dataclass(frozen=True, slots=True)
class Badge:
    """A short verdict on a card; the word carries the meaning, the colour only helps."""

    text: str
    tone: Literal["good", "bad", "plain"] = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One item of a gallery.

    Args:
        title: Its name.
        pictures: Views, drawings or `<img>` elements, the largest first.
        facts: Name and value of what is known of it.
        badges: Verdicts.
        links: Text and path of its files, relative to the page.
    """

    title: Content
    pictures: Sequence[Markup] = ()
    facts: Sequence[tuple[str, Content]] = ()
    badges: Sequence[Badge] = ()
    links: Sequence[tuple[str, str]] = ()

    def body(self) -> Markup:
        """The card."""
        facts = join(*(tag("div", tag("dt", name), tag("dd", value)) for name, value in self.facts))
        badges = join(*(tag("span", badge.text, class_=f"badge {badge.tone}") for badge in self.badges))
        links = join(*(tag("a", text, href=quote(path)) for text, path in self.links))
        caption = join(
            tag("h3", self.title),
            tag("p", badges, class_="badges") if self.badges else None,
            tag("dl", facts, class_="facts") if self.facts else None,
            tag("p", links, class_="links") if self.links else None,
        )
        return tag("article", *self.pictures, tag("div", caption, class_="caption"), class_="card")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Small pictures side by side, many at once.

    Args:
        title: Heading.
        pictures: `<img>` elements, each with a line under it.
        note: A sentence above them.
    """

    title: str
    pictures: Sequence[tuple[Markup, str]]
    note: str = ""

    def body(self) -> Markup:
        """The pictures in rows."""
        note = tag("p", self.note, class_="note") if self.note else None
        figures = (tag("figure", picture, tag("figcaption", name)) for picture, name in self.pictures)
        return join(note, tag("div", *figures, class_="sheet"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """Cards in a grid.

    Args:
        title: Heading.
        cards: In rows, as many beside each other as there is room for.
        note: A sentence above them.
        wide: The cards are twice as wide, for pictures with much in them.
    """

    title: str
    cards: Sequence[Card]
    note: str = ""
    wide: bool = False

    def body(self) -> Markup:
        """The grid."""
        note = tag("p", self.note, class_="note") if self.note else None
        look = "gallery wide" if self.wide else "gallery"
        return join(note, tag("div", *(card.body() for card in self.cards), class_=look))


def _table(head: Sequence[Content], rows: Sequence[Sequence[Cell]], caption: Markup | None = None) -> Markup:
    cells = (tag("th", content, scope="col") for content in head)
    lines = (tag("tr", *(_cell(cell) for cell in row)) for row in rows)
    return tag("table", caption, tag("thead", tag("tr", *cells)), tag("tbody", *lines))


def _cell(cell: Cell) -> Markup:
    if isinstance(cell, Value):
        return tag("td", cell.text, class_="number", data_key=cell.key)
    if isinstance(cell, int | float):
        return tag("td", cell, class_="number", data_key=cell)
    return tag("td", cell)


def _shown(figure: Figure) -> str:
    return f"{100 * figure.value:.1f} %" if figure.share else f"{figure.value:,.4g}"


def _interval(figure: Figure) -> Content:
    """The ends as text, and for a share a small picture of them on the way from 0 to 1."""
    if figure.low is None or figure.high is None:
        return ""
    if not figure.share:
        return f"{figure.low:,.4g} to {figure.high:,.4g}"
    text = f"{100 * figure.low:.1f} to {100 * figure.high:.1f} %"
    low, value, high = (round(80 * end, 2) for end in (figure.low, figure.value, figure.high))
    track = tag("path", d="M0 5H80", stroke="currentColor", opacity=0.18)
    reach = tag("path", d=f"M{low} 5H{high}", stroke="currentColor", stroke_width=3, opacity=0.6)
    spot = tag("circle", cx=value, cy=5, r=3, fill="currentColor")
    picture = tag("svg", track, reach, spot, viewBox="-3 0 86 10", class_="interval", aria_hidden="true")
    return tag("span", picture, text, class_="together")
