"""The report of a run: figures, H&E against virtual stain, DAB maps, worst and best tiles, what failed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from polydit.core.errors import PolyditError
from polydit.core.figure import Measure
from polydit.core.jobs import RunRecord, read_run
from polydit.core.report import (
    Card,
    Gallery,
    Headline,
    Page,
    Section,
    Table,
    counted,
    failed_items,
    failures,
    run_page,
    write_page,
)  # fmt: skip
from polydit.core.report.sections import Cell, Value
from polydit.vstain.evaluate import Evaluation, Matched, evaluate_stains, match_runs
from polydit.vstain.evaluate.inputs import Rejected, Virtual, read_virtual
from polydit.vstain.evaluate.tiles import TileScores
from polydit.vstain.report.cards import figures_of, item_card, text_of, tile_card
from polydit.vstain.report.drawings import DARKEST

MOST_COMPARED: Final = 200
MOST_SHOWN: Final = 24
MOST_LISTED: Final = 500
FEW: Final = 4  # of the worst and of the best tiles

PURPOSE: Final = (
    "Virtual stains are predictions of a model from H&E, for research only. They are not for diagnosis."
)
_HANDS = "Move the slider by mouse or touch, or by the arrow keys."
_FIRST = ("SSIM", "DAB r", "Dice")  # of the figures, in the headline


def write_report(
    run_folder: Path,
    *,
    reference: Path | None = None,
    baseline: Path | None = None,
    limit: int = MOST_COMPARED,
    out: Path | None = None,
) -> Path:
    """Writes the report of a run, and its numbers as `figures.json` beside it.

    Args:
        run_folder: What `vstain run` wrote; it may be unfinished.
        reference: The real stains of the same places, to measure against; None leaves that out.
        baseline: Another run over the same H&E, whose figures stand beside; it needs a reference.
        limit: Measure at most so many items, the first.
        out: The page; None is `report.html` in the run folder.

    Returns:
        The page.

    Raises:
        InputError: There is no run, or the references do not fit to it.
    """
    run = read_run(run_folder)
    matched = match_runs(run.folder, reference, baseline=baseline, limit=limit) if reference else []
    report = _Report(run, matched, evaluate_stains(matched) if matched else None)
    page = report.page()
    return write_page(page, out or run.folder / "report.html", figures=report.summary())


class _Report:
    """The sections of one report."""

    def __init__(self, run: RunRecord, matched: list[Matched], found: Evaluation | None) -> None:
        self.run, self.found = run, found
        self.pairs = matched[0].pairs if matched else {}
        self.made, self.failed = (run.manifest.count(status) for status in ("ok", "failed"))
        self.unreadable: list[tuple[str, str]] = []
        stains = (item for item in read_virtual(run.folder) if isinstance(item, Virtual))
        self.shown = list(islice(stains, MOST_SHOWN))

    def page(self) -> Page:
        sections: list[Section] = [
            Headline("In numbers", self.headline()),
            *self.figures(),
            *self.items(),
            *self.extremes(),
            *self.measures(),
            *self.failures(),
        ]
        return run_page(self.run, subject=[counted(self.made, "stain")], sections=sections, purpose=PURPOSE)

    def summary(self) -> dict[str, Any]:
        """The report's numbers, for a program."""
        return {
            "items": self.made,
            "failed": self.failed,
            "evaluation": self.found.to_json() if self.found else None,
        }

    def headline(self) -> list[tuple[str, str]]:
        numbers = [(f"{self.made:,}", "stains")]
        if self.found:
            run, baseline = self.found.run, self.found.baseline
            for name in _FIRST:
                beside = f" (baseline {baseline.get(name).text()})" if baseline else ""
                numbers.append((run.get(name).text(), f"{name}{beside}"))
            numbers.append((f"{len(run.tiles):,}", "tiles measured"))
        return [*numbers, (f"{self.failed:,}", "failed")]

    def figures(self) -> list[Section]:
        """The figures, with those of the baseline beside them."""
        if self.found is None:
            return []
        run, baseline = self.found.run, self.found.baseline
        rows: list[list[Cell]] = []
        for score in run.scores:
            beside = [_value(baseline.get(score.name))] if baseline else []
            known: list[Cell] = [score.name, _value(score), score.text_interval()]
            rows.append([*known, *beside, score.count, score.method])
        columns = ("Figure", "Value", "95 % interval", *(["Baseline"] if baseline else []), "Tiles", "Method")
        note = ". ".join(["Intervals: images drawn anew (bootstrap)", *self.found.notes(), ""]).rstrip()
        return [Table(title="Figures", columns=columns, rows=rows, note=note)]

    def items(self) -> list[Section]:
        """H&E and stain of the first items; those that cannot be read are noted for `failures`."""
        cards = list(self._item_cards())
        if not cards:
            return []
        which = f"The first {MOST_SHOWN} of {self.made:,}. " if self.made > MOST_SHOWN else ""
        note = f"{which}{_HANDS} DAB: optical density from 0 (white) to {DARKEST:g} or more (dark red)."
        slides = any(item.small for item in self.shown)
        return [Gallery(title="H&E and virtual stain", cards=cards, note=note, wide=slides)]

    def _item_cards(self) -> Iterator[Card]:
        for virtual in self.shown:
            try:
                yield item_card(self.run.manifest.read(virtual.id), virtual)
            except PolyditError as error:
                self.unreadable.append((virtual.id, str(error)))

    def extremes(self) -> list[Section]:
        """The tiles that are least and most like their references."""
        tiles = sorted(
            (tile for tile in (self.found.run.tiles if self.found else ()) if np.isfinite(tile.ssim)),
            key=lambda tile: tile.ssim,
        )
        few = min(FEW, len(tiles) // 2)
        if not few:
            return []
        return [
            Gallery(title="Worst tiles", cards=self._tile_cards(tiles[:few]), note=f"By SSIM. {_HANDS}"),
            Gallery(title="Best tiles", cards=self._tile_cards(tiles[::-1][:few]), note="By SSIM."),
        ]

    def _tile_cards(self, tiles: list[TileScores]) -> list[Card]:
        return [tile_card(tile, self.pairs[tile.item]) for tile in tiles]

    def measures(self) -> list[Section]:
        """What the run says of each item: of a slide its tiles, areas and counts."""
        figures = {record["id"]: figures_of(record) for record in islice(self.run.finished(), MOST_LISTED)}
        names = list(dict.fromkeys(name for found in figures.values() for name in found))
        if not names:
            return []
        rows: list[list[Cell]] = [
            [item, *(Value(text_of(found[name]), found[name]) if name in found else "-" for name in names)]
            for item, found in figures.items()
        ]
        note = f"The first {MOST_LISTED} of {self.made:,}." if self.made > MOST_LISTED else ""
        return [Table(title="Items", columns=("Item", *names), rows=rows, note=note)]

    def failures(self) -> list[Section]:
        rejected = [entry for entry in (self.found.rejected if self.found else ()) if _is_new(entry)]
        rows = [
            *self.unreadable,
            *((entry.source, entry.reason) for entry in rejected),
            *failed_items(self.run),
        ]
        return failures(rows, total=self.failed + len(self.unreadable) + len(rejected))


def _is_new(entry: Rejected) -> bool:
    """Not one of those that failed in the run, which the manifest has already named."""
    return not entry.reason.startswith("it failed in the run")


def _value(score: Measure) -> Cell:
    return score.text() if score.value is None else Value(score.text(), score.value)
