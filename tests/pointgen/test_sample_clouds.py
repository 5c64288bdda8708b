"""`pointgen sample`: what it writes, what it refuses, and that a cloud is the same however it is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from polydit.core.jobs import item_seed, read_run
from polydit.pointgen.cli import pointgen
from polydit.pointgen.cloud import Cloud
from polydit.pointgen.data.readers import read_clouds

Command = Callable[..., Result]


@pytest.fixture
def sample(invoke: Command, tiny_checkpoint: Path) -> Command:
    """``sample("--num-samples", 3, "--out", out)``: no report, 64 points, unless told otherwise."""

    def call(*arguments: object, **environment: str) -> Result:
        defaults: list[object] = ["--points", 64] if "--points" not in arguments else []
        defaults += ["--checkpoint", tiny_checkpoint] if "--checkpoint" not in arguments else []
        return invoke(pointgen, "sample", "--no-report", *defaults, *arguments, **environment)

    return call


def items(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "items").iterdir()}


def cloud(path: Path) -> Cloud:
    (found,) = read_clouds(path)
    assert isinstance(found, Cloud), found
    return found


def ran(result: Result, code: int = 0) -> Result:
    assert result.exit_code == code, result.output
    return result


def test_clouds_in_every_format(sample: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = ran(sample("--num-samples", 3, "--format", "ply,glb,obj,xyz,npy", "--out", out))
    assert result.stdout.splitlines()[-1] == f"3 clouds in {out}"
    run = read_run(out)
    assert [record["id"] for record in run.finished()] == ["chair-000000", "table-000000", "chair-000001"]
    for record in run.finished():
        reference = np.load(out / "items" / f"{record['id']}.npy")
        assert reference.shape == (64, 3)
        for ending in ("ply", "glb", "obj", "xyz"):
            found = cloud(out / "items" / f"{record['id']}.{ending}")
            np.testing.assert_allclose(found.points, reference, atol=1e-5)
        assert record["seed"] == item_seed(0, record["id"])
        assert record["measures"]["category"] == record["id"].split("-")[0]
        assert record["measures"]["num_points"] == 64
        assert record["measures"]["size"] == pytest.approx(np.ptp(reference, axis=0), abs=1e-3)
    header = (out / "items" / "chair-000001.ply").read_bytes().split(b"end_header")[0].decode()
    for told in (f"seed: {item_seed(0, 'chair-000001')}", "category: chair", "model: tiny sha256:"):
        assert told in header


def test_the_defaults(sample: Command, tmp_path: Path) -> None:
    ran(sample("--num-samples", 1, "--out", tmp_path))
    assert sorted(items(tmp_path)) == ["chair-000000.glb", "chair-000000.ply"]
    options = read_run(tmp_path).options
    assert (options["category"], options["points"], options["num_steps"]) == ("chair,table", 64, 3)


def test_json_is_one_object_per_item_and_a_summary(sample: Command, tmp_path: Path) -> None:
    result = ran(sample("--num-samples", 2, "--json", "--out", tmp_path))
    *lines, summary = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert (summary["done"], summary["failed"], summary["new"], summary["products"]) == (2, 0, 2, [])


def test_a_dry_run_says_what_it_costs_and_writes_nothing(sample: Command, tmp_path: Path) -> None:
    out = tmp_path / "run"
    plan = json.loads(ran(sample("--num-samples", 1000, "--out", out, "--dry-run", "--json")).stdout)
    assert (plan["missing"], plan["points"], plan["categories"]) == (1000, 64, ["chair", "table"])
    assert plan["estimated_seconds"] > 0 and plan["samples_per_batch"] > 1
    assert "a model, not a measurement" in ran(sample("--out", out, "--dry-run")).stdout
    assert not out.exists()


# ---------------------------------------------------------------------------------------------------------
# The same cloud however it is made.


def test_batch_size_changes_nothing_but_rounding(sample: Command, tmp_path: Path) -> None:
    for size in (1, 8):
        out = tmp_path / str(size)
        ran(sample("--num-samples", 8, "--batch-size", size, "--format", "npy", "--out", out))
    for path in (tmp_path / "1" / "items").iterdir():
        np.testing.assert_allclose(np.load(path), np.load(tmp_path / "8" / "items" / path.name), atol=1e-4)


def test_shards_and_limits_and_growth_give_the_whole(sample: Command, tmp_path: Path) -> None:
    common = ("--batch-size", 1, "--format", "npy")
    ran(sample("--num-samples", 6, *common, "--out", tmp_path / "whole"))
    whole = items(tmp_path / "whole")
    union: dict[str, bytes] = {}
    for index in range(2):
        out = tmp_path / f"shard-{index}"
        ran(sample("--num-samples", 6, *common, "--shard", f"{index}/2", "--out", out))
        assert not union.keys() & items(out).keys()
        union |= items(out)
    assert union == whole
    grown = tmp_path / "grown"
    ran(sample("--num-samples", 4, "--limit", 1, *common, "--out", grown))
    assert list(items(grown)) == ["chair-000000.npy"]
    ran(sample("--num-samples", 6, *common, "--out", grown))
    assert items(grown) == whole


def test_a_rerun_does_nothing_and_run_json_repeats_it(sample: Command, tmp_path: Path) -> None:
    arguments = ("--num-samples", 2, "--seed", 9, "--category", "table", "--out", tmp_path / "a")
    ran(sample(*arguments))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a" / "items").iterdir()}
    assert "Nothing left to do." in ran(sample(*arguments)).stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a" / "items").iterdir()} == before
    ran(sample("--config", tmp_path / "a" / "run.json", "--out", tmp_path / "b"))
    assert items(tmp_path / "a") == items(tmp_path / "b")


def test_other_settings_in_the_same_folder_are_named(sample: Command, tmp_path: Path) -> None:
    ran(sample("--num-samples", 1, "--out", tmp_path))
    changed = ("--seed", 1, "--points", 32, "--category", "table", "--num-steps", 4)
    result = ran(sample("--num-samples", 1, *changed, "--out", tmp_path), 2)
    for part in ("seed (0 before, 1 now)", "points (64 before, 32 now)", "num-steps (3 before, 4 now)",
                 "category (chair,table before, table now)", "--overwrite"):  # fmt: skip
        assert part in result.stderr


def test_a_lower_precision_is_used(sample: Command, tmp_path: Path) -> None:
    for name in ("fp32", "bf16"):
        out = tmp_path / name
        ran(sample("--num-samples", 1, "--dtype", name, "--format", "npy", "--out", out))
    low, full = (np.load(tmp_path / name / "items" / "chair-000000.npy") for name in ("bf16", "fp32"))
    assert 0 < np.abs(low - full).max() < 0.5


# ---------------------------------------------------------------------------------------------------------
# What it refuses, before a weight is loaded.

REFUSED = {
    "a category that it lacks": (["--category", "sofa"], "makes no 'sofa'; expected chair, table"),
    "one of several": (["--category", "chair,boat"], "makes no 'boat'"),
    "an STL": (["--format", "ply,stl"], "'stl' is not one of ply, glb, obj, xyz, npy. An STL file holds triangles"),
    "an unknown format": (["--format", "pcd"], "'pcd' is not one of"),
    "one point": (["--points", "1"], "--points"),
    "a thousand million points": (["--points", "1000000000"], "--points"),
    "one step": (["--num-steps", "1"], "--num-steps"),
    "a solver that does not fit": (["--solver", "euler"], "cannot be sampled by euler"),
    "a checkpoint that is not there": (["--checkpoint", "nowhere"], "nowhere"),
    "a device that is not there": (["--device", "cuda:99"], "no such device here"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_options_are_found_before_any_weight_is_loaded(
    case: str, sample: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polydit.pointgen.pipeline import PointPipeline

    monkeypatch.setattr(PointPipeline, "from_pretrained", lambda *_: pytest.fail("weights were loaded"))
    options, message = REFUSED[case]
    result = ran(sample(*options, "--out", tmp_path / "run"), 2)
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_program_is_refused(
    sample: Command, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "other")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    assert (
        "expected PointPipeline" in ran(sample("--checkpoint", folder, "--out", tmp_path / "run"), 2).stderr
    )


# ---------------------------------------------------------------------------------------------------------
# What fails.


def test_a_cloud_that_is_none_fails_alone(
    sample: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polydit.pointgen.model import PointDiT

    original = PointDiT.forward

    def forward(self: PointDiT, *arguments: Any, **options: Any) -> Any:
        found = original(self, *arguments, **options).clone()
        found[0] = float("nan")
        return found

    monkeypatch.setattr(PointDiT, "forward", forward)
    result = ran(sample("--num-samples", 4, "--batch-size", 4, "--out", tmp_path), 3)
    (record,) = read_run(tmp_path).failed()
    assert (record["id"], record["error"]["type"]) == ("chair-000000", "NoCloud")
    assert "not finite" in record["error"]["message"] and "1 failed" in result.stderr
    assert len(items(tmp_path)) == 6


def test_out_of_memory_halves_the_batch_and_goes_on(
    sample: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from polydit.pointgen.pipeline import PointPipeline

    original, sizes = PointPipeline.__call__, list[int]()

    def call(self: PointPipeline, requests: Any, **options: Any) -> Any:
        sizes.append(len(requests))
        if len(requests) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return original(self, requests, **options)

    monkeypatch.setattr(PointPipeline, "__call__", call)
    ran(sample("--num-samples", 8, "--batch-size", 4, "--out", tmp_path))
    assert sizes == [4, 2, 2, 2, 2]
