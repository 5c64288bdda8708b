"""The report of an evaluation: success by task, what the policy did, videos, and what broke off."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Final

from polydit.core.jobs import RunRecord, read_run
from polydit.core.report import Figure as ReportFigure
from polydit.core.report import (
    Figures,
    Gallery,
    Headline,
    Page,
    Plots,
    Section,
    Table,
    failed_items,
    failures,
    run_page,
)  # fmt: skip
from polydit.core.report.sections import Cell, Value
from polydit.robopolicy.evaluate.summary import METHOD, Episodes, Summary
from polydit.robopolicy.report.episodes import action_plot, video_card

MOST_PLOTS: Final = 24
MOST_VIDEOS: Final = 24

PURPOSE: Final = "Measured in simulation. It says little of what the policy would do on a real robot."


def write_report(run_folder: Path, *, out: Path | None = None) -> Path:
    """Writes the report of a run.

    Args:
        run_folder: What `robopolicy evaluate` wrote; it may be unfinished.
        out: The page; None is `report.html` in the run folder.

    Returns:
        The page.

    Raises:
        InputError: There is no run.
    """
    run = read_run(run_folder)
    return _Report(run).page().write(out or run.folder / "report.html")


class _Report:
    """The sections of one report."""

    def __init__(self, run: RunRecord) -> None:
        self.run, self.summary = run, Summary.of(run.records())

    def page(self) -> Page:
        found: list[Section] = [self.successes(), self.efforts(), *self.videos(), *self.plots()]
        sections: list[Section] = [
            Headline("At a glance", self.headline()),
            *(found if self.summary.rows else ()),
            *self.failures(),
        ]
        subject = [self.run.options["env"], self.run.options["policy"] or ""]
        return run_page(self.run, subject=subject, sections=sections, purpose=PURPOSE)

    def headline(self) -> list[tuple[str, str]]:
        every, mean = self.summary.all, self.summary.mean_over_tasks
        known = [
            (every.inference_ms, "ms per chunk", ".3g"),
            (every.steps_to_success, "steps to success", ".0f"),
        ]
        return [
            *([(f"{100 * mean:.1f} %", "mean success over tasks")] if mean is not None else []),
            (f"{len(self.summary.tasks):,}", "tasks"),
            (f"{len(self.summary.rows):,}", "episodes"),
            *((f"{value:{form}}", name) for value, name, form in known if value is not None),
            (f"{len(every.broke_off):,}", "broke off"),
        ]

    def successes(self) -> Figures:
        several = len(self.summary.tasks) > 1
        every = [*self.summary.tasks, *([self.summary.all] if several else [])]
        note = f"Success: {METHOD}. Intervals: Wilson score, 95 %, for layouts drawn anew."
        return Figures(title="Success by task", figures=[_figure(episodes) for episodes in every], note=note)

    def efforts(self) -> Table:
        columns = (
            "Task",
            "Steps to success",
            "Reward",
            "Milliseconds per chunk",
            "Steps per second",
            "Broke off",
        )
        rows: list[list[Cell]] = [
            [
                task.name,
                _number(task.steps_to_success, ".1f"),
                _number(task.reward, ",.1f"),
                _number(task.inference_ms, ".3g"),
                _number(task.steps_per_second, ",.0f"),
                len(task.broke_off),
            ]
            for task in self.summary.tasks
        ]
        note = (
            "Means over episodes; steps of the successful ones only. Steps per second are those of one process, the "
            "policy's time included. A baseline plans every step anew."
        )
        return Table(title="Effort by task", columns=columns, rows=rows, note=note)

    def videos(self) -> list[Section]:
        cards = [video_card(record, path) for record, path in islice(self.run.files(".mp4"), MOST_VIDEOS)]
        note = _shown(len(cards), self._count(".mp4"), "videos")
        return [Gallery(title="Videos", cards=cards, note=note)] if cards else []

    def plots(self) -> list[Section]:
        plots = [action_plot(record, path) for record, path in islice(self.run.files(".csv"), MOST_PLOTS)]
        note = f"Actions as they reached the environment. {_shown(len(plots), self._count('.csv'), 'plots')}"
        return [Plots(title="Actions", plots=plots, note=note)] if plots else []

    def _count(self, ending: str) -> int:
        return sum(1 for _ in self.run.files(ending))

    def failures(self) -> list[Section]:
        total = self.run.manifest.count("failed")
        return failures(failed_items(self.run), total, title="Broken off", item="Episode")


def _figure(episodes: Episodes) -> ReportFigure:
    success = episodes.success
    assert success.value is not None and success.interval is not None, "a task without an episode has no row"
    low, high = success.interval
    return ReportFigure(
        name=episodes.name,
        value=success.value,
        method=f"{success.numerator} of {success.denominator} episodes",
        count=success.denominator,
        low=low,
        high=high,
    )


def _number(value: float | None, form: str) -> Cell:
    return "-" if value is None else Value(f"{value:{form}}", value)


def _shown(shown: int, there: int, what: str) -> str:
    return f"The first {shown} of {there:,} {what}; the others are in items/." if there > shown else ""
