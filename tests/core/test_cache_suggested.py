"""The cache that a checkpoint suggests: what auto becomes, and a table of routes in the checkpoint's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from polydit.core.errors import CheckpointError, InputError
from polydit.core.sampling.cache import RouteTable
from polydit.core.sampling.cache.suggested import ROUTES, from_folder, into_folder, settled, suggestion

NEWTON = "newton(every=3,order=2,warm_up=2,cool_down=0,first=1,time=step)"
TABLE = RouteTable(modules=("0.attn",), computed=((True,), (False,)))


def test_auto_is_what_the_checkpoint_suggests(tmp_path: Path) -> None:
    assert settled("auto", "newton", tmp_path) == NEWTON
    for nothing in (None, "", "none"):
        assert settled("auto", nothing, tmp_path) == "none"
    assert settled("delta-dit", "newton", tmp_path) == "delta-dit"
    assert settled("none", "magic", tmp_path) == "none"
    with pytest.raises(CheckpointError, match="no cache is called 'magic'") as refused:
        settled("auto", "magic", tmp_path)
    assert str(tmp_path) in str(refused.value)


def test_a_suggestion_is_for_the_checkpoints_own_number_of_steps() -> None:
    index = {"num_steps": 5, "cache": "newton"}
    assert suggestion(index, 5) == "newton"
    assert suggestion(index, 50) is None is suggestion({"cache": "newton"}, 5)


def test_a_table_goes_into_the_folder_and_comes_from_there(tmp_path: Path) -> None:
    made, first, second = tmp_path / "mine.json", tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    TABLE.write(made)
    stored = into_folder(f"harmonica(table={made})", first)
    assert stored == f"harmonica(table={ROUTES})" and RouteTable.read(first / ROUTES) == TABLE
    used = from_folder(stored, first)
    assert used == f"harmonica(table={first / ROUTES})" == settled("auto", stored, first)
    assert into_folder(used, first) == stored  # onto itself
    assert into_folder(used, second) == stored and RouteTable.read(second / ROUTES) == TABLE
    for other in (NEWTON, "newton", "none", "magic"):
        assert from_folder(other, first) == into_folder(other, first) == other


@pytest.mark.parametrize("name", ["../routes.json", "/etc/passwd", "inner/routes.json"])
def test_a_checkpoint_names_no_file_outside_of_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a file in the checkpoint's folder"):
        settled("auto", f"harmonica(table={name})", tmp_path)


def test_what_a_name_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    made, folder = tmp_path / "mine.json", tmp_path / "a,b"
    folder.mkdir()
    TABLE.write(made)
    with pytest.raises(InputError, match="has a comma"):
        into_folder(f"harmonica(table={made})", folder)
    assert not list(folder.iterdir())
    with pytest.raises(InputError, match="cannot be read"):
        into_folder(f"harmonica(table={tmp_path / 'absent.json'})", tmp_path)
