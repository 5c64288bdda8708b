"""The folder of a data set: what is kept, gone on with, refused and replaced; and who goes into which split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polydit.core.datasets.folder import DatasetKind, dataset_folder
from polydit.core.datasets.splits import check_percent, check_seed, split_order
from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file

NOTES = DatasetKind(
    noun="notes",
    is_there=lambda folder: any(folder.glob("*/*.txt")),
    files=("list.csv", "*/*.txt"),
    folders=("*",),
    packages=("click",),
)


def fill(out: Path, recipe: dict[str, object], *, overwrite: bool = False, name: str = "a") -> None:
    with dataset_folder(out, recipe, NOTES, overwrite=overwrite) as folder:
        (out / "notes").mkdir(exist_ok=True)
        (out / "notes" / f"{name}.txt").write_text(name)
        folder.finish({"list.csv": b"name\n"}, notes=1)


def about(out: Path) -> dict[str, object]:
    return json.loads((out / "data.json").read_text())


def names(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def test_a_finished_folder_says_how_it_was_made(tmp_path: Path) -> None:
    fill(tmp_path, {"seed": 0, "sides": (1, 2)})
    told = about(tmp_path)
    assert (told["recipe"], told["complete"], told["notes"]) == ({"seed": 0, "sides": [1, 2]}, True, 1)
    assert list(told["versions"]) == ["click"]
    assert (tmp_path / "list.csv").read_bytes() == b"name\n"


def test_an_interrupted_folder_is_gone_on_with_by_its_recipe_alone(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="pulled"),
        dataset_folder(tmp_path, {"seed": 0}, NOTES, overwrite=False),
    ):
        (tmp_path / "notes").mkdir()
        for name in ("list.csv.tmp7", "data.json.tmp7", "notes/a.txt", "notes/b.txt.tmp7", "notes/b.tmp7"):
            (tmp_path / name).write_text("half")
        raise RuntimeError("the plug is pulled")
    assert about(tmp_path)["complete"] is False
    with pytest.raises(InputError, match="other settings: seed, sides"):
        fill(tmp_path, {"seed": 1, "sides": 2})
    with dataset_folder(tmp_path, {"seed": 0}, NOTES, overwrite=False) as folder:
        assert not folder.is_complete and folder.about["recipe"] == {"seed": 0}
        assert names(tmp_path) == [".lock", "data.json", "notes/a.txt", "notes/b.tmp7"]


def test_overwrite_removes_our_files_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path, {"seed": 0})
    (tmp_path / "notes" / "mine.md").write_text("kept")
    (tmp_path / "empty").mkdir()
    fill(tmp_path, {"seed": 1}, overwrite=True, name="b")
    assert names(tmp_path) == [".lock", "data.json", "list.csv", "notes/b.txt", "notes/mine.md"]
    assert about(tmp_path)["recipe"] == {"seed": 1} and not (tmp_path / "empty").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_data_of_others_are_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "theirs.txt").write_text("kept")
    with pytest.raises(InputError, match="holds notes that this command did not write"):
        fill(tmp_path, {}, overwrite=overwrite)
    assert names(tmp_path) == [".lock", "notes/theirs.txt"]


def test_a_file_that_is_not_forced_to_the_disk_is_still_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_file(path, sync=False) as handle:
        handle.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.txt"]
    with atomic_file(path, sync=False) as handle:
        handle.write(b"new")
    assert path.read_bytes() == b"new"


# --- splits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [(80, 10, 10), (85, 10, 5)])
@pytest.mark.parametrize("num", [0, 1, 2, 3, 16, 20, 999])
def test_splits_add_up(num: int, percent: tuple[int, int, int]) -> None:
    order = split_order(num, percent)
    assert len(order) == num and order == sorted(order, key=("train", "val", "test").index)
    for split, share in (("val", percent[1]), ("test", percent[2])):
        assert abs(order.count(split) - num * share / 100) <= 0.5


def test_wrong_shares_and_seeds_are_refused() -> None:
    for percent in ((80, 10, 11), (110, -10, 0)):
        with pytest.raises(InputError, match=r"the split .* is not understood.*such as 85 10 5"):
            check_percent(percent, example=(85, 10, 5))
    for seed in (-1, 2**63):
        with pytest.raises(InputError, match=rf"the seed {seed} is out of range"):
            check_seed(seed)
    check_percent((100, 0, 0), example=(85, 10, 5))
    check_seed(2**63 - 1)
