"""`vstain data make` as a user calls it, and `inspect` on what it made."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from polydit.core.cli.group import DomainGroup
from polydit.core.errors import InputError
from polydit.core.jobs.lock import FolderLock
from polydit.vstain.cli.data import data
from polydit.vstain.data.find import find_pairs
from polydit.vstain.data.make import make_dataset, make_tile
from polydit.vstain.data.recipe import ImportRecipe, MakeRecipe

Invoke = Callable[..., Result]
Shell = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--num", 8, "--split", 50, 25, 25)
TOOL = DomainGroup(name="vstain", lazy={"data": ("polydit.vstain.cli.data:data", "")})


def checksums(folder: Path) -> dict[str, str]:
    """Every file but the lock and the record, by its path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "data.json")
    }


@pytest.fixture
def made(invoke: Invoke, tmp_path: Path) -> Path:
    result = invoke(TOOL, "data", "make", *SMALL, "--out", "ds")
    assert result.exit_code == 0, result.output
    return tmp_path / "ds"


def test_make_writes_a_manifest_and_folders(made: Path) -> None:
    about = json.loads((made / "data.json").read_text())
    counts = {"train": 2, "val": 1, "test": 1}
    assert about["complete"] and about["tiles"] == {"ck": counts, "cd3": counts}
    with (made / "manifest.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [row["id"] for row in rows[:3]] == ["ck-000000", "cd3-000001", "ck-000002"]
    assert rows[4] == {
        "id": "ck-000004", "he": "val/HE/ck-000004.png", "ihc": "val/IHC/ck-000004.png",
        "mask": "val/mask/ck-000004.png", "stain": "ck", "split": "val", "mpp": "0.5",
    }  # fmt: skip
    found = find_pairs(made)
    assert [pair.stain for pair in found] == ["ck", "cd3"] * 4 and {pair.mpp for pair in found} == {0.5}
    pair, drawn = found[5].read(), make_tile(5, "cd3")
    assert pair.he.shape == (256, 256, 3)
    for stored, wanted in ((pair.he, drawn.he), (pair.ihc, drawn.ihc), (pair.mask, drawn.mask)):
        assert stored is not None and wanted is not None and np.array_equal(stored, wanted)


def test_a_tile_depends_on_its_number_and_the_seed_alone(made: Path, invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(TOOL, "data", "make", "--num", 4, "--stain", "ck", "--out", "other", "--split", 100, 0, 0)
    assert result.exit_code == 0, result.output
    for name in ("HE/ck-000002.png", "IHC/ck-000002.png", "mask/ck-000002.png"):
        assert (made / "train" / name).read_bytes() == (tmp_path / "other" / "train" / name).read_bytes()
    tiles = [make_tile(number, "ck").he for number in range(4)]
    assert all(not np.array_equal(tiles[0], tile) for tile in (*tiles[1:], make_tile(0, "ck", seed=1).he))


def test_make_again_does_nothing_and_other_settings_are_named(made: Path, invoke: Invoke) -> None:
    before = checksums(made)
    again = invoke(TOOL, "data", "make", *SMALL, "--out", "ds")
    assert again.exit_code == 0 and "made 0 tiles, 8 are of an earlier call" in again.stdout
    other = invoke(TOOL, "data", "make", *SMALL, "--seed", 1, "--coverage", 0.5, "--out", "ds")
    assert other.exit_code == 2 and "other settings: coverage, seed" in other.stderr
    assert checksums(made) == before


def test_overwrite_replaces_tiles_and_nothing_else(made: Path, invoke: Invoke) -> None:
    (made / "val" / "HE" / "notes.txt").write_text("mine")
    line = ("--num", 1, "--stain", "cd3", "--split", 100, 0, 0, "--out", "ds", "--overwrite")
    result = invoke(TOOL, "data", "make", *line)
    assert result.exit_code == 0, result.output
    tile = [f"train/{part}/cd3-000000.png" for part in ("HE", "IHC", "mask")]
    assert list(checksums(made)) == ["manifest.csv", *tile, "val/HE/notes.txt"]


def test_the_number_of_workers_changes_nothing(made: Path, tmp_path: Path) -> None:
    counts: list[int] = []
    make_dataset(tmp_path / "two", 8, workers=2, percent=(50, 25, 25), on_tiles=counts.append)
    assert sum(counts) == 8 and checksums(tmp_path / "two") == checksums(made)


def test_make_zero_tiles(invoke: Invoke) -> None:
    result = invoke(TOOL, "data", "make", "--num", 0, "--out", "ds", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tiles"] == {}


@pytest.mark.parametrize(("workers", "num"), [(1, 8), (2, 20)])
def test_make_killed_goes_on_with_the_same_bytes(
    workers: int, num: int, shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "killed.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "from polydit.vstain.data.make import make_dataset\n"
        "if __name__ == '__main__':\n"
        f"    make_dataset(Path('ds'), {num}, workers={workers},\n"
        "        on_tiles=lambda number: os.kill(os.getpid(), 9))\n"
    )
    assert shell("python killed.py").returncode == -signal.SIGKILL
    begun = checksums(tmp_path / "ds")
    assert 0 < len(begun) < 3 * num and "manifest.csv" not in begun
    with pytest.raises(InputError, match="not finished"):
        find_pairs(tmp_path / "ds")
    (tmp_path / "ds" / "train" / "HE").mkdir(parents=True, exist_ok=True)
    (tmp_path / "ds" / "train" / "HE" / "ck-000006.png.tmp1").write_bytes(b"half")
    lost = next((tmp_path / "ds").glob("*/IHC/*.png"))  # which tiles are there is the workers' race
    lost.write_bytes(lost.read_bytes()[:-50] + bytes(50))  # blocks that a power cut has cost
    kept: list[int] = []
    make_dataset(tmp_path / "ds", num, on_begin=kept.append)
    make_dataset(tmp_path / "whole", num)
    assert kept[0] < num and checksums(tmp_path / "ds") == checksums(tmp_path / "whole")


def test_what_stands_in_the_way(made: Path, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = {
        "file": "cannot be written",
        "foreign": "did not write",
        "locked": f"process {os.getpid()}",
        "damaged": "damaged",
        "other": "not of a data set of ours",
    }
    (tmp_path / "foreign" / "train" / "HE").mkdir(parents=True)
    for name in ("locked", "damaged", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "damaged" / "data.json").write_text("{")
    (tmp_path / "other" / "data.json").write_text("[]")
    lock = FolderLock(tmp_path / "locked")
    for name, reason in refused.items():
        result = invoke(TOOL, "data", "make", *SMALL, "--overwrite", "--out", name)
        assert result.exit_code == 2 and reason in result.stderr, name
    lock.release()


@pytest.mark.parametrize(
    "wrong",
    [
        {"num": -1},
        {"stains": ()},
        {"stains": ("ck", "ck")},
        {"stains": ("her2",)},
        {"percent": (80, 10, 11)},
        {"percent": (110, -10, 0)},
        {"seed": -1},
        {"coverage": 1.5},
    ],
)
def test_wrong_recipes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        MakeRecipe(**wrong)  # type: ignore[arg-type]


def test_the_command_line_takes_the_recipes_defaults() -> None:
    make, importing = ({p.name: p.default for p in data.commands[name].params} for name in ("make", "import"))
    recipe, wanted = MakeRecipe(), ImportRecipe(source="x")
    for name in ("num", "stains", "percent", "seed", "coverage"):
        assert make[name] == getattr(recipe, name), name
    for name in ("layout", "stain", "channels", "tile", "mpp", "source_mpp", "percent", "seed"):
        assert importing[name] == getattr(wanted, name), name


def test_the_commands(invoke: Invoke) -> None:
    told = invoke(TOOL, "data", "--help")
    assert told.exit_code == 0 and all(
        f"\n  {name} " in told.stdout for name in ("make", "inspect", "import", "slide")
    )


def test_inspect_for_a_person_and_for_a_program(made: Path, invoke: Invoke) -> None:
    (made / "test" / "IHC" / "cd3-000007.png").write_bytes(b"")
    result = invoke(TOOL, "data", "inspect", "ds")
    assert result.exit_code == 3
    assert "7 pairs, 1 rejected" in result.stdout and "cd3: train 2, val 1; 3 masks" in result.stdout
    assert "manifest.csv, row 8" in result.stdout and "cannot be read as an image" in result.stdout
    told = json.loads(
        invoke(TOOL, "data", "inspect", "ds", "--split", "train", "--stain", "ck", "--json").stdout
    )
    masks = [pair.read().mask for pair in find_pairs(made, split="train", stain="ck")]
    assert told["pairs"] == 2 and told["sizes"] == {"256x256": 2} and told["mpp"] == {"0.5": 2}
    assert np.isclose(told["positive_share"]["ck"], np.mean(masks)) and told["rejected"] == 0
    limited = json.loads(invoke(TOOL, "data", "inspect", "ds", "--limit", 0, "--json").stdout)
    assert limited["pairs"] == 0
