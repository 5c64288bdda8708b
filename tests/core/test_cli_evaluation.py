"""The folder of an evaluation's figures, and the items that were left out of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import click
import pytest

from polydit.core.cli.evaluation import SOME_ITEMS_FAILED, FiguresFolder, exit_for, name_rejected
from polydit.core.cli.output import Output
from polydit.core.errors import InputError

NAMES = ("figures.json", "rows.csv", "rejected.csv")


class Left(NamedTuple):
    source: str
    reason: str


def test_a_folder_is_replaced_only_if_asked_and_keeps_nothing_of_before(tmp_path: Path) -> None:
    folder = FiguresFolder(tmp_path / "a" / "figures", NAMES)
    folder.check(overwrite=False)
    assert not (tmp_path / "a").exists()
    with folder.held():
        folder.write({"figures.json": b"1", "rejected.csv": b"2"})
    with pytest.raises(InputError, match=r"--out .*figures: it holds an evaluation already.*--overwrite"):
        folder.check(overwrite=False)
    folder.check(overwrite=True)
    with folder.held():
        folder.write({"figures.json": b"3", "rows.csv": b"4"})
    found = {path.name: path.read_bytes() for path in (tmp_path / "a" / "figures").glob("[!.]*")}
    assert found == {"figures.json": b"3", "rows.csv": b"4"}


def test_two_evaluations_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = FiguresFolder(tmp_path, NAMES)
    with folder.held(), pytest.raises(InputError, match="another run is working"), folder.held():
        pass
    with folder.held():  # the lock is free again
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        FiguresFolder(tmp_path / "file", NAMES).check(overwrite=True)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = FiguresFolder(None, NAMES)
    folder.check(overwrite=False)
    with folder.held():
        folder.write({"figures.json": b"1"})
    assert not list(tmp_path.iterdir())


def test_the_first_rejected_are_named_and_decide_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    rejected = [Left(f"a.sdf:{k}", "no atoms") for k in range(12)]
    name_rejected(rejected, Output())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Warning: a.sdf:0: no atoms" and len(lines) == 11
    assert "and 2 more" in lines[-1]
    with click.Context(click.Command("evaluate")):
        exit_for([])
        with pytest.raises(click.exceptions.Exit) as left:
            exit_for(rejected)
    assert left.value.exit_code == SOME_ITEMS_FAILED
