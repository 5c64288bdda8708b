"""Whole files or none, and names that stay where they belong."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from polydit.core.errors import PolyditError
from polydit.core.jobs import DiskFullError, atomic_file, safe_name
from polydit.core.jobs.files import naming_write_errors, remove_leftovers


def test_an_error_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as handle:
        handle.write(b"half of the new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_whole_file_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_file(path) as handle:
        handle.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_named(code: int, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="the disk is full") as caught, naming_write_errors(tmp_path):
        raise OSError(code, "x")
    assert str(tmp_path) in str(caught.value)
    assert caught.value.exit_code == 1


def test_another_refusal_keeps_the_systems_words(tmp_path: Path) -> None:
    with pytest.raises(PolyditError, match="Input/output error"), naming_write_errors(tmp_path):
        raise OSError(errno.EIO, "Input/output error")


def test_leftovers_go_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "items" / "deep").mkdir(parents=True)
    ours = ["run.json.tmp12", "items/a.sdf.tmp3", "items/deep/b.png.tmp4"]
    others = ["notes.txt.tmp12", "run.json", "items/a.sdf", "items/x.tmp"]
    for name in ours + others:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, ["run.json"])
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(others)


@pytest.mark.parametrize("name", ["mol-000017", "a", "A_b.c-1", "x" * 100])
def test_harmless_ids_are_kept(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "a/b", "a\\b", "..", ".", ".hidden", "", "a b", "x" * 101, "é", "a.",
     "a\nb", "a\0b"],
)  # fmt: skip
def test_other_ids_become_harmless(name: str) -> None:
    made = safe_name(name)
    assert safe_name(made) == made != name
    assert len(made) <= 100
    assert not set(made) & set("/\\\0\n ")


def test_ids_that_look_alike_stay_apart() -> None:
    ids = ["a/b", "a b", "a\\b", "a-b", "a//b", "../a-b"]
    assert len({safe_name(i) for i in ids}) == len(ids)
