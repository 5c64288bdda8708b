"""The page of a run: subtitle, what failed, settings, purpose and licence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polydit.core.cli.config import Option
from polydit.core.cli.output import Output
from polydit.core.cli.report import say_written
from polydit.core.jobs import ItemFailure, RunFolder, RunRecord, read_run
from polydit.core.report import Table, Text, failed_items, failures, run_page, write_page
from polydit.core.report.run_page import MOST_FAILURES, counted


def run_with(folder: Path, *, checkpoint: dict[str, str] | None, failed: int = 0) -> RunRecord:
    provenance = {"checkpoint": checkpoint} if checkpoint else {}
    options = {"seed": Option(0, "default")}
    with RunFolder.open(folder, command="demo run", options=options, provenance=provenance) as run:
        run.commit([
            ItemFailure(id=f"item-{k}", index=k, seed=k, error="input", message=f"reason {k}")
            for k in range(failed)
        ])  # fmt: skip
    return read_run(folder)


def test_the_page_says_what_of_which_checkpoint_and_for_what(tmp_path: Path) -> None:
    checkpoint = {"name": "mine", "sha256": "abc", "licence": "CC0"}
    run = run_with(tmp_path, checkpoint=checkpoint)
    page = run_page(run, subject=["2 things", ""], sections=[Text("First", ["words"])], purpose="For tests.")
    assert page.title == "demo run"
    assert page.subtitle == f"2 things · checkpoint mine · {run.run['started'][:10]} · done"
    assert [section.title for section in page.sections] == ["First", "Settings", "Provenance"]
    assert list(page.footer) == ["For tests.", "Licence of the checkpoint: CC0."]


def test_without_a_checkpoint_none_is_named(tmp_path: Path) -> None:
    page = run_page(
        run_with(tmp_path, checkpoint=None), subject=["2 things"], sections=[], purpose="For tests."
    )
    assert "checkpoint" not in str(page.subtitle)
    assert list(page.footer) == ["For tests."]


def test_the_first_failures_are_named_and_the_others_counted(tmp_path: Path) -> None:
    assert failures([], 0) == []
    run = run_with(tmp_path, checkpoint=None, failed=MOST_FAILURES + 3)
    [table] = failures(failed_items(run), run.manifest.count("failed"), title="Broken off", item="Episode")
    assert isinstance(table, Table)
    assert (table.title, table.columns) == ("Broken off", ("Episode", "Reason"))
    assert table.rows[1] == ("item-1", "reason 1") and len(table.rows) == MOST_FAILURES
    assert table.note.startswith("And 3 more")


def test_numbers_lie_beside_the_page_and_both_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with(tmp_path, checkpoint=None)
    page = run_page(run, subject=[], sections=[], purpose="For tests.")
    written = write_page(page, tmp_path / "page.html", figures={"things": 2})
    figures = tmp_path / "figures.json"
    assert written == tmp_path / "page.html" and "For tests." in written.read_text()
    assert json.loads(figures.read_text()) == {"things": 2}
    say_written(written, Output(), figures=figures)
    assert capsys.readouterr().out == f"Figures: {figures}\nReport: {written}\n"
    say_written(written, Output(json=True))
    assert json.loads(capsys.readouterr().out) == {"event": "summary", "report": str(written)}


def test_one_thing_is_no_plural() -> None:
    assert [counted(n, "cloud") for n in (0, 1, 1200)] == ["0 clouds", "1 cloud", "1,200 clouds"]
