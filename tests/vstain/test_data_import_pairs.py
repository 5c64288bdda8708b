"""`vstain data import`: pairs of any layout become a data set of ours."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from polydit.core.cli.group import DomainGroup
from polydit.core.errors import InputError
from polydit.vstain.colour import coarse_mask
from polydit.vstain.data.find import find_pairs
from polydit.vstain.data.importing import import_dataset, plan_import
from polydit.vstain.data.recipe import ImportRecipe
from polydit.vstain.data.tissue import render

Invoke = Callable[..., Result]
Shell = Callable[..., subprocess.CompletedProcess[str]]
TOOL = DomainGroup(name="vstain", lazy={"data": ("polydit.vstain.cli.data:data", "")})
SIDE = 100  # of the images: three tiles of 32 and four pixels that are not used


def put(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two folders of the same names; one pair has a mask."""
    for number in range(4):
        drawn = render(number, 700, 700, SIDE, SIDE, "ck", coverage=1.0)
        put(tmp_path / "mine" / "HE" / f"[{number}] a.png", drawn.he)
        put(tmp_path / "mine" / "IHC" / f"[{number}] a.png", drawn.ihc)
    put(tmp_path / "mine" / "mask" / "[0] a.png", drawn.mask.astype(np.uint8) * 255)
    return tmp_path / "mine"


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "data.json")
    }


def test_import_cuts_tiles_and_keeps_pairs_together(source: Path, invoke: Invoke, tmp_path: Path) -> None:
    line = ("mine", "--stain", "ck", "--tile", 32, "--source-mpp", 0.5, "--split", 50, 25, 25)
    result = invoke(TOOL, "data", "import", *line, "--out", "ds")
    assert result.exit_code == 0, result.output
    assert "wrote 4 pairs: 36 tiles; 0 are left out" in result.stdout
    found = find_pairs(tmp_path / "ds")
    assert {pair.mpp for pair in found} == {0.5} and {pair.stain for pair in found} == {"ck"}
    splits = {pair.id.rsplit("-", 2)[0]: set() for pair in found}
    for pair in found:
        splits[pair.id.rsplit("-", 2)[0]].add(pair.split)
    assert len(splits) == 4 and sorted(len(of_pair) for of_pair in splits.values()) == [1] * 4
    assert sorted(split for of_pair in splits.values() for split in of_pair) == [
        "test",
        "train",
        "train",
        "val",
    ]
    whole = find_pairs(source)[1].read()
    mask = coarse_mask(whole.ihc)
    for pair in (pair.read() for pair in found if pair.id.startswith("1-a")):
        row, column = (int(part) for part in pair.id.split("-")[-2:])
        there = slice(2 + 32 * row, 34 + 32 * row), slice(2 + 32 * column, 34 + 32 * column)
        assert np.array_equal(pair.he, whole.he[there]) and np.array_equal(pair.ihc, whole.ihc[there])
        assert pair.mask is not None and np.array_equal(pair.mask, mask[there])
    again = invoke(TOOL, "data", "import", *line, "--out", "ds")
    assert again.exit_code == 0 and "wrote 0 pairs, 4 are of an earlier call: 36 tiles" in again.stdout


def test_a_mask_that_is_there_is_kept(source: Path, tmp_path: Path) -> None:
    import_dataset(tmp_path / "ds", ImportRecipe(source=str(source), stain="ck", tile=96))
    tiles = {pair.id: pair.read().mask for pair in find_pairs(tmp_path / "ds")}
    given = find_pairs(source)[0].read().mask
    (stored,) = (mask for name, mask in tiles.items() if name.startswith("0-a"))
    assert stored is not None and given is not None and np.array_equal(stored, given[2:98, 2:98])


def test_import_resamples(source: Path, tmp_path: Path) -> None:
    recipe = ImportRecipe(source=str(source), stain="ck", tile=48, source_mpp=0.25, mpp=0.5)
    imported = import_dataset(tmp_path / "ds", recipe)
    assert imported.tiles == 4
    pair = find_pairs(tmp_path / "ds")[0]
    assert pair.mpp == 0.5 and pair.size() == (48, 48)
    image, whole = pair.read().he.astype(float), find_pairs(source)[0].read().he.astype(float)
    halved = whole.reshape(50, 2, 50, 2, 3).mean(axis=(1, 3))[1:49, 1:49]
    assert np.abs(image - halved).mean() < 3


def test_what_must_be_said(source: Path, invoke: Invoke) -> None:
    def reason(*words: object) -> str:
        result = invoke(TOOL, "data", "import", *words, "--out", "ds")
        assert result.exit_code == 2, result.output
        return result.stderr

    assert "--stain her2" in reason("mine")
    assert "--source-mpp 0.25" in reason("mine", "--stain", "ck", "--mpp", 0.5)
    assert "no such file or folder" in reason("nowhere")
    assert "no pair can be used, the first: 100 x 100 pixels" in reason("mine", "--stain", "ck")


def test_the_output_may_not_lie_in_the_input(source: Path, invoke: Invoke) -> None:
    for out in ("mine/ds", "mine", "mine/../mine/train"):
        result = invoke(TOOL, "data", "import", "mine", "--stain", "ck", "--tile", 32, "--out", out)
        assert result.exit_code == 2 and "lies in the folder that is imported" in result.stderr
    assert sorted(path.name for path in source.iterdir()) == ["HE", "IHC", "mask"]


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_pairs_are_left_out_and_named(workers: int, source: Path, invoke: Invoke, tmp_path: Path) -> None:
    (source / "HE" / "alone.png").write_bytes((source / "HE" / "[0] a.png").read_bytes())
    whole = (source / "IHC" / "[1] a.png").read_bytes()
    (source / "IHC" / "[1] a.png").write_bytes(whole[:500])
    put(source / "IHC" / "[2] a.png", np.zeros((SIDE, SIDE - 1, 3), np.uint8))
    line = ("mine", "--stain", "ck", "--tile", 32, "--workers", workers, "--json")
    result = invoke(TOOL, "data", "import", *line, "--out", "ds")
    assert result.exit_code == 3, result.output
    summary = json.loads(result.stdout)
    assert (summary["written"], summary["tiles"]) == (2, 18)
    left_out = {Path(entry["source"]).name: entry["reason"] for entry in summary["left_out"]}
    assert list(left_out) == ["[1] a.png", "[2] a.png", "alone.png"]
    assert "damaged" in left_out["[1] a.png"] and "99 x 100 pixels" in left_out["[2] a.png"]
    assert "no such file" in left_out["alone.png"] and "is left out" in result.stderr
    assert len(find_pairs(tmp_path / "ds")) == 18
    (source / "IHC" / "[1] a.png").write_bytes(whole)
    again = json.loads(invoke(TOOL, "data", "import", *line, "--out", "ds").stdout)
    assert (again["kept"], again["written"], again["tiles"]) == (2, 1, 27)


def test_import_goes_on_after_a_kill(source: Path, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "from polydit.vstain.data.importing import ImportRecipe, import_dataset\n"
        "import_dataset(Path('ds'), ImportRecipe(source='mine', stain='ck', tile=32),\n"
        "    on_pair=lambda: os.kill(os.getpid(), 9))\n"
    )
    assert shell("python killed.py").returncode == -signal.SIGKILL
    assert len(files(tmp_path / "ds")) == 27
    with pytest.raises(InputError, match="not finished"):
        find_pairs(tmp_path / "ds")
    (tmp_path / "rest.py").write_text(
        (tmp_path / "killed.py").read_text().replace("os.kill(os.getpid(), 9)", "0")
    )
    assert shell("python rest.py").returncode == 0
    import_dataset(tmp_path / "whole", ImportRecipe(source=str(source), stain="ck", tile=32))
    assert files(tmp_path / "ds") == files(tmp_path / "whole")


def test_splits_of_the_source_stay_and_names_are_harmless(tmp_path: Path) -> None:
    drawn = render(0, 0, 0, 32, 32, "ck", coverage=1.0)
    (tmp_path / "x").mkdir()
    put(tmp_path / "x" / "h.png", drawn.he)
    put(tmp_path / "x" / "i.png", drawn.ihc)
    ids = ("../../up", "a/b", "a-b", "a b", "a?b")
    rows = "".join(f"{name},h.png,i.png,ck,test\n" for name in ids)
    (tmp_path / "x" / "t.csv").write_text(f"id,he,ihc,stain,split\n{rows}")
    recipe = ImportRecipe(source=str(tmp_path / "x" / "t.csv"), tile=32)
    assert len({entry.name for entry in plan_import(recipe)}) == 5
    import_dataset(tmp_path / "ds", recipe)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ds", "x"]
    assert len(list((tmp_path / "ds" / "test" / "HE").iterdir())) == 5
    assert {pair.split for pair in find_pairs(tmp_path / "ds")} == {"test"}


def test_the_channels_of_hemit_are_asked_for(invoke: Invoke, tmp_path: Path) -> None:
    drawn = render(1, 4000, 4000, 64, 64, "ck", coverage=1.0)
    label = np.zeros_like(drawn.he)
    label[drawn.nuclei, 2], label[drawn.mask, 0] = 200, 220
    for split in ("train", "test"):
        put(tmp_path / "HEMIT" / split / "input" / "[1,2]_patch_0_0.tif", drawn.he)
        put(tmp_path / "HEMIT" / split / "label" / "[1,2]_patch_0_0.tif", label)
    for command in ("inspect", "import"):
        out = ("--out", "ds") if command == "import" else ()
        refused = invoke(TOOL, "data", command, "HEMIT", *out)
        assert refused.exit_code == 2 and "--channels dapi,panck,cd3" in refused.stderr
    line = ("HEMIT", "--channels", "panck,cd3,dapi", "--tile", 64, "--out", "ds")
    result = invoke(TOOL, "data", "import", *line)
    assert result.exit_code == 0, result.output
    panck, cd3 = (
        find_pairs(tmp_path / "ds", split="test", stain=stain)[0].read() for stain in ("panck", "cd3")
    )
    assert panck.mask is not None and cd3.mask is not None and not cd3.mask.any()
    assert 2 * (panck.mask & drawn.mask).sum() / (panck.mask.sum() + drawn.mask.sum()) > 0.9
    assert np.array_equal(panck.he, drawn.he)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layout": "bcii"},
        {"channels": ("dapi",)},
        {"tile": 8},
        {"mpp": 0.0},
        {"source_mpp": 101.0},
        {"seed": -1},
    ],
)
def test_wrong_recipes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        ImportRecipe(source="x", **wrong)  # type: ignore[arg-type]
