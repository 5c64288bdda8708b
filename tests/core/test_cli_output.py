"""Results go to stdout, everything else to stderr, and --json is strict."""

from __future__ import annotations

import json

import pytest

from polydit.core.cli.output import Output

Capture = pytest.CaptureFixture[str]


def test_json_lines_are_strict(capsys: Capture) -> None:
    output = Output(json=True)
    output.item({"id": "a", "energy": float("nan"), "all": [1.5, float("inf")]})
    output.table([{"n": 1}, {"n": 2}])
    output.text("for people")
    output.summary({"done": 2}, "for people")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        {"id": "a", "energy": None, "all": [1.5, None]},
        {"n": 1},
        {"n": 2},
        {"event": "summary", "done": 2},
    ]


def test_people_get_a_table_and_a_last_line(capsys: Capture) -> None:
    output = Output()
    output.item({"id": "a"})
    output.table([{"name": "a", "value": 0.123456}, {"name": "bcd", "value": None}])
    output.summary({"done": 2}, "2 done", "run/")
    assert capsys.readouterr().out == "name  value\na     0.1235\nbcd   -\n2 done\nrun/\n"


@pytest.mark.parametrize(("quiet", "verbose", "seen"), [(False, 0, "n"), (False, 1, "nd"), (True, 1, "")])
def test_notes_are_on_stderr(capsys: Capture, quiet: bool, verbose: int, seen: str) -> None:
    output = Output(quiet=quiet, verbose=verbose)
    output.note("n")
    output.detail("d")
    output.warn("w")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.split("\n") == [*seen, "Warning: w", ""]


def test_progress_without_a_terminal_is_plain_lines(capsys: Capture) -> None:
    with Output().progress(3, what="molecules", initial=1) as bar:
        bar.update()
        bar.update()
    assert capsys.readouterr().err == "molecules: 3/3\n"


@pytest.mark.parametrize("output", [Output(quiet=True), Output(json=True)])
def test_progress_can_be_silent(capsys: Capture, output: Output) -> None:
    with output.progress(1) as bar:
        bar.update()
    assert capsys.readouterr() == ("", "")
