"""`pointgen data make`, `inspect` and `import` as a user calls them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from click.testing import Result

from polydit.core.jobs.lock import FolderLock
from polydit.pointgen.cli import pointgen
from polydit.pointgen.cli.data import data
from polydit.pointgen.cloud import Cloud
from polydit.pointgen.data.importing import unit_box
from polydit.pointgen.data.make import make_dataset
from polydit.pointgen.data.pc15k import SYNSETS, category_folder, category_name
from polydit.pointgen.data.readers import read_clouds
from polydit.pointgen.data.recipe import ImportRecipe, MakeRecipe
from polydit.pointgen.data.shapes import shape_points

Invoke = Callable[..., Result]
Shell = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--category", "table", "--num", 8, "--points", 60, "--split", 50, 25, 25)


def shapes(folder: Path) -> dict[str, str]:
    """Every shape by its path, as a checksum."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.npy"))
    }


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tmp*"))


@pytest.fixture
def made(invoke: Invoke, tmp_path: Path) -> Path:
    result = invoke(pointgen, "data", "make", *SMALL, "--out", "ds")
    assert result.exit_code == 0, result.output
    return tmp_path / "ds"


# --- make -----------------------------------------------------------------------------------------------


def test_make_writes_pc15k(made: Path) -> None:
    about = json.loads((made / "data.json").read_text())
    assert about["complete"] and about["shapes"] == {"table": {"train": 4, "val": 2, "test": 2}}
    assert about["recipe"]["seed"] == 0 and "numpy" in about["versions"]
    stored = np.load(made / "04379243" / "val" / "table-000004.npy")
    assert stored.dtype == np.float32 and np.array_equal(stored, shape_points("table", 0, 4, 60))


def test_make_again_does_nothing_and_other_settings_are_named(made: Path, invoke: Invoke) -> None:
    before = shapes(made)
    again = invoke(pointgen, "data", "make", *SMALL, "--out", "ds")
    assert again.exit_code == 0 and "made 0 shapes, 8 are of an earlier call" in again.stdout
    other = invoke(pointgen, "data", "make", *SMALL, "--seed", 1, "--num", 9, "--out", "ds")
    assert other.exit_code == 2
    assert "other settings: num, seed" in other.stderr
    assert shapes(made) == before


def test_overwrite_replaces_shapes_and_nothing_else(made: Path, invoke: Invoke) -> None:
    (made / "04379243" / "notes.txt").write_text("mine")
    result = invoke(
        pointgen,
        "data",
        "make",
        "--category",
        "chair",
        "--num",
        2,
        "--points",
        60,
        "--out",
        "ds",
        "--overwrite",
    )
    assert result.exit_code == 0, result.output
    assert list(shapes(made)) == ["03001627/train/chair-000000.npy", "03001627/train/chair-000001.npy"]
    assert (made / "04379243" / "notes.txt").read_text() == "mine"


def test_the_number_of_workers_changes_nothing(made: Path, tmp_path: Path) -> None:
    counts: list[int] = []
    percent = (50, 25, 25)
    make_dataset(
        tmp_path / "two", ("table",), 8, 0, 2, num_points=60, percent=percent, on_shapes=counts.append
    )
    assert sum(counts) == 8 and shapes(tmp_path / "two") == shapes(made)


def test_make_zero_shapes(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(pointgen, "data", "make", "--num", 0, "--out", "ds", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["shapes"] == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_make_killed_goes_on_with_the_same_bytes(workers: int, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "from polydit.pointgen.data.make import make_dataset\n"
        "if __name__ == '__main__':\n"
        f"    make_dataset(Path('ds'), ('chair',), 48, 0, {workers}, num_points=60,\n"
        "        on_shapes=lambda number: os.kill(os.getpid(), 9))\n"
    )
    assert shell("python killed.py").returncode == -signal.SIGKILL
    begun = shapes(tmp_path / "ds")
    assert 0 < len(begun) < 48 and not json.loads((tmp_path / "ds" / "data.json").read_text())["complete"]
    (tmp_path / "ds" / "03001627" / "train" / "chair-000040.npy.tmp1").write_bytes(b"half")
    first = next(iter(begun))
    (tmp_path / "ds" / first).write_bytes(b"lost in a power cut")
    kept: list[int] = []
    make_dataset(tmp_path / "ds", ("chair",), 48, num_points=60, on_begin=kept.append)
    make_dataset(tmp_path / "whole", ("chair",), 48, num_points=60)
    assert kept[0] < 48 and not leftovers(tmp_path / "ds")
    assert shapes(tmp_path / "ds") == shapes(tmp_path / "whole")


def test_what_stands_in_the_way(made: Path, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = {
        "file": "cannot be written",
        "foreign": "did not write",
        "locked": f"process {os.getpid()}",
        "damaged": "damaged",
    }
    (tmp_path / "foreign" / "03001627" / "train").mkdir(parents=True)
    np.save(tmp_path / "foreign" / "03001627" / "train" / "a.npy", np.eye(3))
    (tmp_path / "locked").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "data.json").write_text("{")
    lock = FolderLock(tmp_path / "locked")
    for name, reason in refused.items():
        result = invoke(pointgen, "data", "make", *SMALL, "--overwrite", "--out", name)
        assert result.exit_code == 2 and reason in result.stderr, name
    lock.release()
    assert (tmp_path / "foreign" / "03001627" / "train" / "a.npy").exists()


def test_the_command_line_takes_the_recipes_defaults() -> None:
    make, importing = ({p.name: p.default for p in data.commands[name].params} for name in ("make", "import"))
    recipe, wanted = MakeRecipe(), ImportRecipe(source="x")
    assert (make["num"], make["num_points"], make["seed"]) == (recipe.num, recipe.num_points, recipe.seed)
    assert make["percent"] == recipe.percent == importing["percent"] == wanted.percent
    assert (importing["scaling"], importing["category"]) == (wanted.scaling, wanted.category)


def test_fifty_five_categories_have_synsets() -> None:
    assert len(SYNSETS) == len(set(SYNSETS.values())) == 55
    assert category_name("03797390") == "mug" and category_folder("mug") == "03797390"
    assert category_name("dragon") == category_folder("dragon") == "dragon"


# --- inspect --------------------------------------------------------------------------------------------


def test_inspect_for_a_person_and_for_a_program(made: Path, invoke: Invoke) -> None:
    np.save(made / "04379243" / "val" / "bad.npy", np.full((60, 3), np.nan))
    result = invoke(pointgen, "data", "inspect", "ds")
    assert result.exit_code == 3
    assert "8 clouds, 1 rejected" in result.stdout and "table  8" in result.stdout
    assert "bad.npy: 20 of 20 points are not finite" in result.stdout
    figures = json.loads(invoke(pointgen, "data", "inspect", "ds", "--split", "train", "--json").stdout)
    points = np.concatenate([c.points for c in read_clouds(made, split="train") if isinstance(c, Cloud)])
    assert figures["clouds"] == 4 and figures["points"] == {"40": 4}
    assert np.allclose(figures["mean"], points.mean(0), atol=1e-6)
    assert np.isclose(figures["scale"], (points - points.mean(0)).std(), rtol=1e-5)
    assert np.allclose(figures["high"], points.max(0)) and figures["rejected"] == 0


# --- import ---------------------------------------------------------------------------------------------


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """ModelNet's folders: meshes of two categories, already split."""
    for category, side in (("chair", 1.0), ("sofa", 2.0)):
        for split in ("train", "test"):
            folder = tmp_path / "models" / category / split
            folder.mkdir(parents=True)
            for number in range(2):
                mesh = trimesh.creation.box(extents=(side, 10.0 + number, side))
                mesh.apply_translation([50, 0, 0])
                (folder / f"{category}_{number}.off").write_text(mesh.export(file_type="off"))
    return tmp_path / "models"


def test_import_keeps_categories_and_splits(models: Path, invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(
        pointgen, "data", "import", "models", "--points", 600, "--scaling", "unit-box", "--out", "ds"
    )
    assert result.exit_code == 0, result.output
    assert "wrote 8 shapes; 0 are left out" in result.stdout
    names = [f"04256520/{split}/sofa_{n}.npy" for split in ("test", "train") for n in range(2)]
    assert list(shapes(tmp_path / "ds"))[4:] == names
    stored = np.load(tmp_path / "ds" / names[0])
    assert stored.shape == (600, 3) and stored.dtype == np.float32
    assert np.isclose(np.ptp(stored[:, 1]), 1.0) and np.allclose(stored.max(0), -stored.min(0), atol=1e-6)
    assert np.isclose(stored[:, 0].max(), 0.1, atol=2e-3)
    again = invoke(
        pointgen, "data", "import", "models", "--points", 600, "--scaling", "unit-box", "--out", "ds"
    )
    assert again.exit_code == 0 and "wrote 0 shapes, 8 are of an earlier call" in again.stdout


def test_import_does_not_depend_on_workers(models: Path, invoke: Invoke, tmp_path: Path) -> None:
    for workers in (1, 2):
        result = invoke(
            pointgen,
            "data",
            "import",
            "models",
            "--points",
            50,
            "--workers",
            workers,
            "--out",
            f"ds{workers}",
        )
        assert result.exit_code == 0, result.output
    assert shapes(tmp_path / "ds1") == shapes(tmp_path / "ds2")


def test_import_shares_scans_out_and_leaves_bad_ones_out(invoke: Invoke, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "scans" / "more").mkdir(parents=True)
    for number in range(19):
        np.save(tmp_path / "scans" / f"scan {number}.npy", rng.normal(size=(100, 3)))
    np.save(tmp_path / "scans" / "more" / "many.npy", rng.normal(size=(2, 100, 3)))
    np.save(tmp_path / "scans" / "few.npy", rng.normal(size=(99, 3)))
    (tmp_path / "scans" / "empty.ply").write_bytes(b"")
    (tmp_path / "scans" / "cut.npy").write_bytes(b"\x93NUMPY")
    line = ("import", "scans", "--category", "chair", "--points", 100, "--out", "ds", "--json")
    result = invoke(pointgen, "data", *line)
    assert result.exit_code == 3, result.output
    summary = json.loads(result.stdout)
    assert summary["written"] == 21
    assert [Path(entry["source"]).name for entry in summary["left_out"]] == [
        "cut.npy", "empty.ply", "few.npy",
    ]  # fmt: skip
    assert "fewer than the 100" in summary["left_out"][2]["reason"]
    about = json.loads((tmp_path / "ds" / "data.json").read_text())
    assert sum(about["shapes"]["chair"].values()) == 21 and about["left_out"] == summary["left_out"]
    assert {"val", "test"} <= set(about["shapes"]["chair"])


def test_import_goes_on_after_a_kill(models: Path, invoke: Invoke, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "killed.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "from polydit.pointgen.data.importing import ImportRecipe, import_dataset\n"
        "import_dataset(Path('ds'), ImportRecipe(source='models', num_points=50),\n"
        "    on_shape=lambda: os.kill(os.getpid(), 9))\n"
    )
    assert shell("python killed.py").returncode == -signal.SIGKILL
    assert len(shapes(tmp_path / "ds")) == 1
    result = invoke(pointgen, "data", "import", "models", "--points", 50, "--out", "ds")
    assert result.exit_code == 0 and "wrote 7 shapes, 1 are of an earlier call" in result.stdout


def test_import_of_nothing_good(models: Path, invoke: Invoke, tmp_path: Path) -> None:
    def reason(*words: object) -> str:
        result = invoke(pointgen, "data", "import", *words, "--points", 50, "--out", "ds")
        assert result.exit_code == 2
        return result.stderr

    assert "no such file or folder" in reason("nowhere")
    assert "--category" in reason("models/chair/train/chair_0.off")
    for path in models.rglob("*.off"):
        path.write_bytes(b"OFF\n")
    assert "no shape can be written" in reason("models")


def test_the_unit_box() -> None:
    points = np.array([(2, 0, 0), (6, 1, 0), (4, 2, 1)], np.float32)
    boxed = unit_box(points)
    assert np.allclose(boxed, [(-0.5, -0.25, -0.125), (0.5, 0, -0.125), (0, 0.25, 0.125)])
