"""The report of a run: counts, a sheet of all shapes, rotatable views, nearest training shapes, what failed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Final

from polydit.core.jobs import RunRecord, read_run
from polydit.core.report import (
    HANDS,
    Badge,
    Card,
    Gallery,
    Headline,
    Page,
    Section,
    Sheet,
    Table,
    counted,
    failed_items,
    failures,
    run_page,
    viewer,
    write_page,
)  # fmt: skip
from polydit.core.report.markup import Content, Markup, tag
from polydit.core.report.sections import Cell, Value
from polydit.pointgen.report.clouds import MOST_POINTS, Counts, Entry, Shown, entries_of
from polydit.pointgen.report.neighbours import (
    METHOD,
    Neighbour,
    Neighbours,
    nearest_training_shapes,
)

MOST_COMPARED: Final = 64
MOST_SHOWN: Final = 48
MOST_THUMBNAILS: Final = 120

PURPOSE: Final = "Shapes are samples of a model, not designs: nothing about them is to scale or fit for use."


def write_report(
    run_folder: Path, *, train: Path | None = None, limit: int = MOST_COMPARED, out: Path | None = None
) -> Path:
    """Writes the report of a run, and its numbers as `figures.json` beside it.

    Args:
        run_folder: What `pointgen sample`, `complete` or `interpolate` wrote; it may be unfinished.
        train: Training set, to show the nearest of its shapes beside each sample; None leaves that out.
        limit: Compare at most so many samples with it, the first.
        out: The page; None is `report.html` in the run folder.

    Returns:
        The page.

    Raises:
        InputError: There is no run, or the training set cannot be read.
    """
    run = read_run(run_folder)
    unreadable: list[tuple[str, str]] = []
    entries = list(islice(entries_of(run, unreadable), max(MOST_THUMBNAILS, limit if train else 0)))
    near = nearest_training_shapes([entry.cloud for entry in entries[:limit]], train) if train else None
    report = _Report(run, entries, near, unreadable)
    path = out or run.folder / "report.html"
    return write_page(report.page(), path, figures=report.summary())


class _Report:
    """The sections of one report, from what was read of the run."""

    def __init__(
        self,
        run: RunRecord,
        entries: list[Entry],
        near: Neighbours | None,
        unreadable: list[tuple[str, str]],
    ) -> None:
        self.run, self.entries, self.near, self.unreadable = run, entries, near, unreadable
        self.made, self.failed = (run.manifest.count(status) for status in ("ok", "failed"))
        self.counts = Counts.of(run)

    def page(self) -> Page:
        found: list[Section] = [self.categories(), self.sheet(), *self.comparison(), self.gallery()]
        sections: list[Section] = [
            Headline("In numbers", self.headline()),
            *(found if self.entries else ()),
            *self.failures(),
        ]
        return run_page(self.run, subject=[counted(self.made, "cloud")], sections=sections, purpose=PURPOSE)

    def summary(self) -> dict[str, Any]:
        """The report's numbers, for a program."""
        return {
            "samples": self.made,
            "failed": self.failed,
            "categories": self.counts.to_json(),
            "nearest_training_shapes": self.near.to_json() if self.near else None,
        }

    def headline(self) -> list[tuple[str, str]]:
        points = [str(entry.num_points) for entry in self.entries[:1]]
        return [
            (f"{self.made:,}", "clouds"),
            *((f"{int(number):,}", "points each") for number in points),
            (f"{len(self.counts.categories):,}", "categories"),
            *self._nearness(),
            (f"{self.failed:,}", "failed"),
        ]

    def _nearness(self) -> list[tuple[str, str]]:
        if not self.near or not self.near.of or not self.near.usual:
            return []
        ratio = median(near.distance for near in self.near.of.values()) / max(median(self.near.usual), 1e-12)
        return [(f"{ratio:.2f} ×", "as far from training shapes as those from each other")]

    def categories(self) -> Table:
        rows: list[list[Cell]] = []
        for name in self.counts.categories:
            many = self.counts.ok[name]
            sides = self.counts.size.get(name)
            size = " × ".join(f"{side / many:.2f}" for side in sides) if sides is not None and many else "-"
            rows.append([name, many, self.counts.failed[name], size])
        columns = ("Category", "Clouds", "Failed", "Mean size (x × y × z)")
        return Table(title="Categories", columns=columns, rows=rows)

    def sheet(self) -> Sheet:
        few = self.entries[:MOST_THUMBNAILS]
        note = f"The first {len(few)} of {self.made:,}." if self.made > len(few) else ""
        pictures = [(entry.shown.still(), entry.cloud.id) for entry in few]
        return Sheet(title="At a glance", pictures=pictures, note=note)

    def gallery(self) -> Gallery:
        few = self.entries[:MOST_SHOWN]
        which = f"The first {MOST_SHOWN} of {self.made:,}. " if self.made > MOST_SHOWN else ""
        known = any("known_points" in entry.record["measures"] for entry in few)
        colours = "Colour is height." + (" The points that were given are red." if known else "")
        thinned = any(entry.num_points > MOST_POINTS for entry in few)
        more = f" A view shows at most {MOST_POINTS:,} points." if thinned else ""
        cards = [_card(entry, self._neighbour(entry), self._usual()) for entry in few]
        return Gallery(title="Shapes", cards=cards, note=f"{which}{HANDS} {colours}{more}")

    def comparison(self) -> list[Section]:
        """How far the samples are from the training set, and it from itself."""
        if self.near is None:
            return []
        series = (
            ("samples to their nearest training shape", [near.distance for near in self.near.of.values()]),
            ("training shapes to the nearest other one", self.near.usual),
        )
        rows: list[list[Cell]] = [
            [name, len(values), *(_scientific(f(values)) for f in (min, median, max))]
            for name, values in series
            if values
        ]
        columns = ("Distance", "Of", "Smallest", "Median", "Largest")
        note = (
            f"{METHOD} {self.near.searched:,} training shapes were searched, those of the same category where it is "
            "known. Samples much nearer to them than they are to each other would be remembered, not made."
        )
        return [Table(title="Nearest training shapes", columns=columns, rows=rows, note=note)]

    def _neighbour(self, entry: Entry) -> Neighbour | None:
        return self.near.of.get(entry.cloud.id) if self.near else None

    def _usual(self) -> float:
        """Distance below which a sample is nearer than training shapes are to each other."""
        return min(self.near.usual) if self.near and self.near.usual else 0.0

    def failures(self) -> list[Section]:
        return failures([*self.unreadable, *failed_items(self.run)], total=self.failed + len(self.unreadable))


def _card(entry: Entry, near: Neighbour | None, usual: float) -> Card:
    cloud, measures = entry.cloud, entry.record["measures"]
    pictures = [viewer(entry.shown.scene(), label=f"Point cloud {cloud.id}")]
    facts: list[tuple[str, Content]] = [("points", f"{entry.num_points:,}")]
    facts += [("size", " × ".join(f"{side:.2f}" for side in measures.get("size", ())))]
    if "known_points" in measures:
        facts.append(("of them given", f"{measures['known_points']:,}"))
    facts.append(("seed", str(entry.record["seed"])))
    if "mix" in measures:
        facts += [("to seed", str(measures["seed_to"])), ("way there", f"{100 * measures['mix']:.0f} %")]
    badges = [Badge(cloud.category)] if cloud.category else []
    if near is not None:
        pictures.append(_beside(near))
        facts.append(("nearest training shape", _scientific(near.distance).text))
        badges += [Badge("near a training shape", "bad")] if near.distance < usual else []
    links = [(path.rpartition(".")[2].upper(), path) for path in map(_path, entry.record["outputs"])]
    return Card(title=cloud.id, pictures=pictures, badges=badges, facts=facts, links=links)


def _path(output: Any) -> str:
    return str(output["path"])


def _beside(near: Neighbour) -> Markup:
    """The nearest training shape under the view of a sample."""
    return tag(
        "div",
        Shown.of(near.cloud).still(),
        tag("p", "nearest training shape ", near.cloud.id),
        class_="beside",
    )


def _scientific(value: float) -> Value:
    """A Chamfer distance as the field writes it, in thousandths."""
    return Value(f"{1e3 * value:.3g} × 10⁻³", value)
