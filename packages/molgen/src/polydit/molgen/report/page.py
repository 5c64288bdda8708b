"""The report of a run: figures, distributions beside the training set's, the structures, what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from polydit.core.jobs import RunRecord, read_run
from polydit.core.report import (
    HANDS,
    Card,
    Figures,
    Gallery,
    Headline,
    Page,
    Plot,
    Plots,
    Section,
    bar_plot,
    counted,
    failures,
    histogram,
    run_page,
    write_page,
)  # fmt: skip
from polydit.core.report import Figure as ReportFigure
from polydit.core.report.markup import Markup
from polydit.core.report.run_page import MOST_FAILURES
from polydit.molgen.data.structure import Kind, Rejected, Structure
from polydit.molgen.evaluate import Evaluation, evaluate_structures
from polydit.molgen.evaluate.inputs import read_inputs, read_training
from polydit.molgen.report.cards import crystal_card, molecule_card
from polydit.molgen.report.depict import CONTACT
from polydit.molgen.report.survey import Survey, training_survey

if TYPE_CHECKING:
    from polydit.molgen.evaluate import Figure

MOST_MEASURED: Final = 2000
"""Structures measured unless asked otherwise, the first: this bounds the time and memory of a report."""
MOST_SHOWN: Final = 48
MOST_ELEMENTS: Final = 20

PURPOSE: Final = "For research. Not a basis for decisions about synthesis, safety or the use of a substance."

_HEADLINES: Final = (
    "edm_valid", "rdkit_valid_and_connected", "edm_unique_of_valid",
    "crystal_structure_valid", "crystal_smact_valid", "crystal_unique_of_valid",
)  # fmt: skip
_SPELLING: Final = {"edm": "EDM", "rdkit": "RDKit", "smact": "SMACT", "posebusters": "PoseBusters"}


def write_report(
    run_folder: Path,
    *,
    train: Path | None = None,
    evaluation: Evaluation | None = None,
    limit: int = MOST_MEASURED,
    out: Path | None = None,
) -> Path:
    """Writes the report of a run, and the figures as `figures.json` beside it.

    Args:
        run_folder: What `molgen sample` wrote; it may be unfinished.
        train: Training set, for distributions and novelty; None takes the sizes that the checkpoint remembers
            and leaves novelty out.
        evaluation: Figures of this run that exist already; None measures them now.
        limit: Measure at most so many structures, the first.
        out: The page; None is `report.html` in the run folder.

    Returns:
        The page.

    Raises:
        InputError: There is no run, or the training set cannot be read.
    """
    run = read_run(run_folder)
    samples = Survey("samples", keep=MOST_FAILURES)
    training = Survey("training set") if train else training_survey(run)
    entries = samples.watch(_until(limit, read_inputs([run.folder])))
    known = training.watch(read_training([train])) if train else None
    if evaluation is None:
        evaluation = evaluate_structures(entries, training=known)
    for _ in chain(entries, known or ()):
        pass  # what the figures did not need still counts for the distributions
    report = _Report(run, samples, training, evaluation, limit)
    path = out or run.folder / "report.html"
    return write_page(report.page(), path, figures=report.summary())


def _until(limit: int, entries: Iterable[Structure | Rejected]) -> Iterator[Structure | Rejected]:
    """The entries before structure number `limit`; rejected ones do not count."""
    structures = 0
    for entry in entries:
        structures += isinstance(entry, Structure)
        if structures > limit:
            return
        yield entry


class _Report:
    """The sections of one report, from what was read of the run."""

    def __init__(
        self, run: RunRecord, samples: Survey, training: Survey, evaluation: Evaluation, limit: int
    ) -> None:
        self.run, self.samples, self.training = run, samples, training
        self.evaluation, self.limit = evaluation, limit
        self.made, self.failed = (run.manifest.count(status) for status in ("ok", "failed"))
        self.measured = sum(sum(sizes.values()) for sizes in samples.sizes.values())

    def page(self) -> Page:
        found: list[Section] = [
            Figures(title="Figures", figures=self.figures(), note=self.note()),
            Plots(title="Distributions", plots=self.plots(), note=self.training_note()),
            Gallery(title="Structures", cards=self.cards(), note=self.gallery_note()),
        ]
        sections: list[Section] = [
            Headline("At a glance", self.headline()),
            *(found if self.measured else ()),
            *self.failures(),
        ]
        return run_page(
            self.run, subject=[counted(self.made, "structure")], sections=sections, purpose=PURPOSE
        )

    def summary(self) -> dict[str, Any]:
        """The report's numbers, for a program."""
        return {
            "samples": self.made,
            "failed": self.failed,
            "measured": self.measured,
            "figures": self.evaluation.to_json(),
            "distributions": {"samples": self.samples.to_json(), "training set": self.training.to_json()},
        }

    def headline(self) -> list[tuple[str, str]]:
        found = {figure.name: figure for figure in self.evaluation.figures}
        shown = [found[name] for name in _HEADLINES if name in found]
        figures = [
            (f"{100 * f.value:.1f} %", _spelled(f.name.removeprefix("crystal_")))
            for f in shown
            if f.value is not None
        ]
        return [(f"{self.made:,}", "structures"), *figures, (f"{self.failed:,}", "failed")]

    def figures(self) -> list[ReportFigure]:
        return [_report_figure(figure) for figure in self.evaluation.figures if figure.denominator]

    def note(self) -> str:
        intervals = "Intervals: Wilson score, 95 %."
        if self.made <= self.limit:
            return intervals
        return (
            f"{intervals} Measured on the first {self.measured:,} of {self.made:,} structures; "
            "molgen report --limit and molgen evaluate measure more."
        )

    def plots(self) -> list[Plot]:
        return [plot for kind in self.samples.sizes for plot in self._plots_of(kind)]

    def _plots_of(self, kind: Kind) -> list[Plot]:
        surveys = (self.samples, self.training)
        sizes = {s.name: dict(sorted(s.sizes[kind].items())) for s in surveys if s.sizes.get(kind)}
        elements = _leading({s.name: s.elements[kind] for s in surveys if s.elements.get(kind)})
        by_size = histogram(sizes, title=f"Atoms per {kind}", x_label="atoms")
        by_element = bar_plot(elements, title=f"Elements in {kind}s", x_label="element, share of all atoms")
        return [_plot(by_size, "atoms", sizes), _plot(by_element, "element", elements)]

    def training_note(self) -> str:
        if not self.training.sizes:
            return "Nothing is known of the training set here; --train PATH compares with one."
        if not self.training.elements:
            return "The checkpoint keeps its training set's sizes only; --train PATH shows elements too."
        return ""

    def cards(self) -> list[Card]:
        """The first structures, in the order of the run."""
        records = {record["id"]: record for record in islice(self.run.finished(), MOST_FAILURES)}
        molecules = {row.id: row for row in self.evaluation.molecules}
        crystals = {row.id: row for row in self.evaluation.crystals}
        return [
            molecule_card(s, molecules.get(s.id), records.get(s.id))
            if s.kind == "molecule"
            else crystal_card(s, crystals.get(s.id), records.get(s.id))
            for s in self.samples.structures[:MOST_SHOWN]
        ]

    def gallery_note(self) -> str:
        which = f"The first {MOST_SHOWN} of {self.made:,}. " if self.made > MOST_SHOWN else ""
        crystals = (
            f" Sticks in a crystal join nearest neighbours (within {100 * CONTACT - 100:.0f} % of the "
            "shortest distance of both); they are not bonds."
        )
        return which + HANDS + (crystals if "crystal" in self.samples.sizes else "")

    def failures(self) -> list[Section]:
        prefix = f"{self.run.folder}:"
        rows = [(entry.source.removeprefix(prefix), entry.reason) for entry in self.samples.rejected]
        return failures(rows, self.samples.num_rejected)


def _report_figure(figure: Figure) -> ReportFigure:
    assert figure.value is not None
    assert figure.interval is not None
    low, high = figure.interval
    return ReportFigure(
        name=_spelled(figure.name),
        value=figure.value,
        method=figure.method,
        count=figure.denominator,
        low=low,
        high=high,
    )


def _leading(elements: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    """The most frequent elements of all series together, the rest as one category."""
    shares: Counter[str] = Counter()
    for counts in elements.values():
        shares.update({name: count / counts.total() for name, count in counts.items()})
    leading = [name for name, _ in shares.most_common(MOST_ELEMENTS)]
    chosen = {series: {name: counts[name] for name in leading} for series, counts in elements.items()}
    if len(shares) > MOST_ELEMENTS:
        for series, counts in elements.items():
            chosen[series]["other"] = counts.total() - sum(chosen[series].values())
    return chosen


def _plot(picture: Markup, label: str, series: Mapping[str, Mapping[Any, int]]) -> Plot:
    """A picture with the counts behind it."""
    names = dict.fromkeys(name for counts in series.values() for name in counts)
    rows = [[name, *(counts.get(name, 0) for counts in series.values())] for name in names]
    return Plot(picture=picture, columns=(label, *series), rows=rows)


def _spelled(name: str) -> str:
    """A figure's name as words: "edm_unique_of_valid" becomes "EDM unique of valid"."""
    return " ".join(_SPELLING.get(word, word) for word in name.split("_"))
