"""`molgen sample`: what it writes, and that a structure is the same however it is made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import Result

from polydit.core.jobs import item_seed, read_run

if TYPE_CHECKING:
    from polydit.molgen.data.structure import Structure

Sample = Callable[..., Result]


def items(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "items").iterdir()}


def structures(path: Path) -> list[Structure]:
    from polydit.molgen.data.readers import read_structures

    found = list(read_structures(path))
    assert all(hasattr(entry, "positions") for entry in found), found
    return found  # type: ignore[return-value]


def ran(result: Result, code: int = 0) -> Result:
    assert result.exit_code == code, result.output
    return result


# ---------------------------------------------------------------------------------------------------------
# What it writes.


def test_molecules_in_every_format(sample: Sample, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = ran(sample("--num-samples", 6, "--format", "sdf,xyz,extxyz", "--out", out))
    assert result.stdout.splitlines()[-1] == f"6 molecules in {out}"
    names = [f"mol-{i:06d}" for i in range(6)]
    assert sorted(items(out)) == sorted(f"{name}.{end}" for name in names for end in ("sdf", "xyz", "extxyz"))
    for end in ("sdf", "xyz", "extxyz"):
        joined = structures(out / f"molecules.{end}")
        assert [s.kind for s in joined] == ["molecule"] * 6
        assert (out / f"molecules.{end}").read_bytes() == b"".join(
            items(out)[f"{name}.{end}"] for name in names
        )
    run = read_run(out)
    assert run.run["status"] == "done"
    assert set(run.provenance["checkpoint"]) == {"name", "path", "sha256", "licence"}
    for record, structure in zip(run.finished(), structures(out / "molecules.extxyz"), strict=True):
        assert record["measures"]["num_atoms"] == structure.num_atoms
        assert record["measures"]["formula"] == structure.formula
        assert isinstance(record["measures"]["edm_stable"], bool)
        assert structure.properties["seed"] == record["seed"] == item_seed(0, record["id"])
        assert str(structure.properties["model"]).startswith("tiny sha256:")


def test_crystals_in_every_format(sample: Sample, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran(
        sample(
            "--kind",
            "crystal",
            "--num-samples",
            5,
            "--format",
            "cif,extxyz",
            "--spacegroup",
            225,
            "--out",
            out,
        )
    )
    for end in ("cif", "extxyz"):
        joined = structures(out / f"crystals.{end}")
        assert [s.kind for s in joined] == ["crystal"] * 5
    for record, structure in zip(read_run(out).finished(), joined, strict=True):
        measures = record["measures"]
        assert measures["num_atoms"] == structure.num_atoms in (2, 4)
        assert structure.cell is not None
        assert measures["volume"] == pytest.approx(abs(np.linalg.det(structure.cell)), abs=1e-3)
        assert measures["min_distance"] > 0


def test_the_default_formats(sample: Sample, tmp_path: Path) -> None:
    ran(sample("--num-samples", 1, "--out", tmp_path / "m"))
    ran(sample("--num-samples", 1, "--kind", "crystal", "--out", tmp_path / "c"))
    assert list(items(tmp_path / "m")) == ["mol-000000.sdf"]
    assert list(items(tmp_path / "c")) == ["crystal-000000.cif"]


def test_the_report_is_written(sample: Sample, tmp_path: Path) -> None:
    result = ran(sample("--num-samples", 2, "--report", "--out", tmp_path))
    assert str(tmp_path / "report.html") in result.stdout
    assert "mol-000001" in (tmp_path / "report.html").read_text()
    ran(sample("--num-samples", 1, "--report", "--overwrite", "--out", tmp_path))
    assert "mol-000001" not in (tmp_path / "report.html").read_text()


def test_json_is_one_object_per_item_and_a_summary(sample: Sample, tmp_path: Path) -> None:
    result = ran(sample("--num-samples", 3, "--json", "--out", tmp_path))
    *lines, summary = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines == [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert summary["event"] == "summary"
    assert (summary["done"], summary["failed"], summary["new"]) == (3, 0, 3)
    assert summary["products"] == [str(tmp_path / "molecules.sdf")]


def test_zero_samples_are_a_whole_run_without_weights(
    sample: Sample, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    for report in ("--no-report", "--report"):
        ran(sample("--num-samples", 0, report, "--out", tmp_path / report))
        run = read_run(tmp_path / report)
        assert (list(run.records()), run.run["status"], list(run.folder.glob("molecules.*"))) == (
            [],
            "done",
            [],
        )


def test_a_dry_run_says_what_it_costs_and_writes_nothing(sample: Sample, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = ran(sample("--num-samples", 1000, "--out", out, "--dry-run", "--json"))
    plan = json.loads(result.stdout)
    assert (plan["missing"], plan["atoms"], plan["num_steps"]) == (1000, [5, 12], 4)
    assert plan["estimated_seconds"] > 0 and plan["estimated_memory_bytes"] > 1e8
    assert "a model, not a measurement" in ran(sample("--out", out, "--dry-run")).stdout
    assert not out.exists()


# ---------------------------------------------------------------------------------------------------------
# The same structure however it is made.


def test_batch_size_changes_nothing_but_rounding(sample: Sample, tmp_path: Path) -> None:
    for size in (1, 64):
        ran(
            sample(
                "--num-samples", 24, "--batch-size", size, "--format", "extxyz", "--out", tmp_path / f"{size}"
            )
        )
    single, together = (structures(tmp_path / f"{size}" / "molecules.extxyz") for size in (1, 64))
    for one, other in zip(single, together, strict=True):
        assert np.array_equal(one.numbers, other.numbers)
        assert np.abs(one.positions - other.positions).max() < 1e-4
        assert one.properties["seed"] == other.properties["seed"]


def test_noise_of_an_item_is_bitwise_the_same_in_any_batch() -> None:
    import torch

    from polydit.molgen.pipeline import Prior, SampleRequest

    requests = [
        SampleRequest(id=f"{i}", kind="molecule", num_atoms=5 + i % 7, seed=item_seed(0, f"{i}"))
        for i in range(64)
    ]
    together = Prior(requests, 12, 4, torch.device("cpu"))()
    for row, request in enumerate(requests):
        alone = Prior([request], request.num_atoms, 4, torch.device("cpu"))()
        assert torch.equal(alone[0], together[row, : request.num_atoms])
        assert not together[row, request.num_atoms :].any()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_lower_precision_is_used_and_recorded(dtype: str, sample: Sample, tmp_path: Path) -> None:
    for name in (dtype, "fp32"):
        ran(sample("--num-samples", 3, "--dtype", name, "--format", "extxyz", "--out", tmp_path / name))
    assert read_run(tmp_path / dtype).options["dtype"] == dtype
    low, full = (structures(tmp_path / name / "molecules.extxyz") for name in (dtype, "fp32"))
    differences = [np.abs(a.positions - b.positions).max() for a, b in zip(low, full, strict=True)]
    assert 0 < max(differences) < 1.0


def test_shards_together_are_the_whole(sample: Sample, tmp_path: Path) -> None:
    ran(sample("--num-samples", 10, "--batch-size", 1, "--out", tmp_path / "whole"))
    union: dict[str, bytes] = {}
    for index in range(3):
        out = tmp_path / f"shard-{index}"
        ran(sample("--num-samples", 10, "--batch-size", 1, "--shard", f"{index}/3", "--out", out))
        assert not union.keys() & items(out).keys()
        union |= items(out)
    assert union == items(tmp_path / "whole")


def test_a_run_grows(sample: Sample, tmp_path: Path) -> None:
    ran(sample("--num-samples", 3, "--batch-size", 1, "--out", tmp_path / "grown"))
    before = items(tmp_path / "grown")
    ran(sample("--num-samples", 7, "--batch-size", 1, "--out", tmp_path / "grown"))
    ran(sample("--num-samples", 7, "--batch-size", 1, "--out", tmp_path / "whole"))
    assert items(tmp_path / "grown") == items(tmp_path / "whole") == before | items(tmp_path / "grown")
    joined = [(tmp_path / name / "molecules.sdf").read_bytes() for name in ("grown", "whole")]
    assert joined[0] == joined[1]


def test_a_limit_stops_early_and_the_rest_can_follow(sample: Sample, tmp_path: Path) -> None:
    ran(sample("--num-samples", 5, "--limit", 2, "--out", tmp_path))
    assert list(items(tmp_path)) == ["mol-000000.sdf", "mol-000001.sdf"]
    ran(sample("--num-samples", 5, "--out", tmp_path))
    assert len(items(tmp_path)) == 5


def test_a_rerun_does_nothing(sample: Sample, tmp_path: Path) -> None:
    ran(sample("--num-samples", 3, "--out", tmp_path))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "items").iterdir()}
    result = ran(sample("--num-samples", 3, "--guidance-scale", 2.0, "--num-steps", 4, "--out", tmp_path))
    assert "Nothing left to do." in result.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "items").iterdir()} == before


def test_run_json_repeats_a_run(sample: Sample, tmp_path: Path) -> None:
    ran(sample("--num-samples", 3, "--seed", 9, "--atoms", "5-9", "--num-steps", 3, "--out", tmp_path / "a"))
    ran(sample("--config", tmp_path / "a" / "run.json", "--out", tmp_path / "b"))
    assert items(tmp_path / "a") == items(tmp_path / "b")


def test_guidance_of_zero_and_one_are_values(sample: Sample, tmp_path: Path) -> None:
    made = {}
    for scale in ("0", "1", "2"):
        ran(sample("--num-samples", 2, "--guidance-scale", scale, "--out", tmp_path / scale))
        assert read_run(tmp_path / scale).options["guidance_scale"] == float(scale)
        made[scale] = items(tmp_path / scale)
    assert made["0"] != made["1"] != made["2"] != made["0"]
