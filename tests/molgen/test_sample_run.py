"""`molgen sample`: what it writes, what it refuses, and that a structure is the same however it is made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import Result

from polydit.core.jobs import RunFolder, item_seed, read_run
from polydit.molgen.checkpoint import Checkpoint

if TYPE_CHECKING:
    from polydit.molgen.data.structure import Structure
    from polydit.molgen.pipeline import MolgenPipeline

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


# ---------------------------------------------------------------------------------------------------------
# What it refuses, before a weight is loaded.

REFUSED = {
    "a CIF of a molecule": (["--format", "sdf,cif"], "--format cif: cannot hold a molecule"),
    "an SDF of a crystal": (
        ["--kind", "crystal", "--format", "sdf"],
        "cannot hold a crystal; expected cif, extxyz",
    ),
    "a space group of a molecule": (["--spacegroup", "225"], "--kind crystal"),
    "a space group that does not exist": (["--kind", "crystal", "--spacegroup", "231"], "--spacegroup"),
    "more atoms than the model knows": (["--atoms", "13"], "--atoms 13"),
    "atoms that are no number": (["--atoms", "many"], "--atoms many"),
    "an unknown format": (["--format", "pdb"], "pdb"),
    "one step": (["--num-steps", "1"], "--num-steps"),
    "a negative guidance": (["--guidance-scale", "-1"], "--guidance-scale"),
    "a negative number": (["--num-samples", "-1"], "--num-samples"),
    "a checkpoint that is not there": (["--checkpoint", "nowhere"], "nowhere"),
    "a device that is not there": (["--device", "cuda:99"], "no such device here"),
    "a shard beyond the last": (["--shard", "3/3"], "--shard"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_options_are_found_before_any_weight_is_loaded(
    case: str, sample: Sample, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from polydit.molgen.pipeline import MolgenPipeline

    monkeypatch.setattr(MolgenPipeline, "from_pretrained", lambda *_: pytest.fail("weights were loaded"))
    options, message = REFUSED[case]
    result = ran(sample(*options, "--out", tmp_path / "run"), 2)
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


def checkpoint_with(tiny: Path, folder: Path, change: Callable[[Path], object]) -> Path:
    shutil.copytree(tiny, folder)
    change(folder)
    return folder


def edit_index(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        index = json.loads((folder / "model_index.json").read_text()) | changes
        (folder / "model_index.json").write_text(json.dumps(index))

    return change


def truncate_weights(folder: Path) -> None:
    weights = folder / "denoiser" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


DAMAGED = {
    "truncated": (truncate_weights, "truncated"),
    "without its index": (lambda folder: (folder / "model_index.json").unlink(), "model_index.json"),
    "with a torn index": (
        lambda folder: (folder / "model_index.json").write_text('{"_cl'),
        "model_index.json",
    ),
    "of another program": (edit_index(_class_name="FluxPipeline"), "expected MolgenPipeline"),
    "without sizes": (edit_index(size_histograms={}), "does not say how large its molecules are"),
    "of crystals": (edit_index(size_histograms={"crystal": {"2": 1}}), "makes crystals only"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_checkpoint_that_does_not_fit_is_refused(
    case: str, sample: Sample, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    change, message = DAMAGED[case]
    folder = checkpoint_with(tiny_checkpoint, tmp_path / "checkpoint", change)
    result = ran(sample("--checkpoint", folder, "--out", tmp_path / "run"), 2)
    assert message in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_its_weights_and_configs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def leave_notes(folder: Path) -> None:
        (folder / "card.md").write_text("edited")
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "recipe.pyc").write_bytes(b"x")

    known = Checkpoint.find(str(tiny_checkpoint)).sha256
    noted = checkpoint_with(tiny_checkpoint, tmp_path / "noted", leave_notes)
    changed = checkpoint_with(tiny_checkpoint, tmp_path / "changed", edit_index(num_steps=5))
    assert Checkpoint.find(str(noted)).sha256 == known != Checkpoint.find(str(changed)).sha256


def test_a_single_file_is_no_checkpoint_folder(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"PK")
    result = ran(sample("--checkpoint", tmp_path / "last.ckpt", "--out", tmp_path / "run"), 2)
    assert f"molgen convert {tmp_path / 'last.ckpt'}" in result.stderr


def test_other_settings_in_the_same_folder_are_named(
    sample: Sample, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    ran(sample("--num-samples", 2, "--out", tmp_path / "run"))
    before = items(tmp_path / "run")
    other = checkpoint_with(tiny_checkpoint, tmp_path / "other", edit_index(elements={"molecule": {"H": 1}}))
    changed = ["--seed", 1, "--num-steps", 3, "--atoms", "9", "--format", "xyz", "--checkpoint", other]
    result = ran(sample("--num-samples", 2, *changed, "--out", tmp_path / "run"), 2)
    for part in ("seed (0 before, 1 now)", "num-steps (4 before, 3 now)", "atoms (auto before, 9 now)",
                 "formats (['sdf'] before, ['xyz'] now)", "checkpoint (sha256 ", "--overwrite"):  # fmt: skip
        assert part in result.stderr
    assert "num-samples" not in result.stderr
    ran(sample("--num-samples", 1, "--out", tmp_path / "run"), 2)
    assert items(tmp_path / "run") == before
    ran(sample("--num-samples", 1, "--seed", 1, "--overwrite", "--out", tmp_path / "run"))
    assert list(items(tmp_path / "run")) == ["mol-000000.sdf"]
    assert items(tmp_path / "run")["mol-000000.sdf"] != before["mol-000000.sdf"]


def test_two_runs_into_one_folder(sample: Sample, tmp_path: Path) -> None:
    ran(sample("--num-samples", 2, "--out", tmp_path))
    with RunFolder.open(tmp_path, command="molgen sample", options={}, provenance={}, overwrite=True):
        result = ran(sample("--num-samples", 2, "--out", tmp_path), 2)
    assert "another run is working in this folder (process" in result.stderr


def test_a_folder_that_cannot_be_written(sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert "is a file, not a folder" in ran(sample("--out", tmp_path / "file"), 2).stderr
    assert "cannot be written" in ran(sample("--out", tmp_path / "file" / "run"), 2).stderr
    assert "cannot be written" in ran(sample("--out", "/proc/run"), 2).stderr  # refused to root as well


# ---------------------------------------------------------------------------------------------------------
# What fails.


@pytest.fixture
def faulty_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """Its cells have lengths around zero: some are negative."""
    from safetensors.torch import load_file, save_file

    def change(folder: Path) -> None:
        path = folder / "autoencoder" / "diffusion_pytorch_model.safetensors"
        weights = load_file(path)
        head = weights["decoder.lattice_head.weight"]
        head[:3] = head[:3].mul(30)
        head[:3, 0] = 0.0
        save_file(weights, path, metadata={"format": "pt"})

    return checkpoint_with(tiny_checkpoint, tmp_path / "faulty", change)


def test_an_absurd_crystal_fails_alone_with_a_reason(
    sample: Sample, tmp_path: Path, faulty_checkpoint: Path
) -> None:
    arguments = ("--kind", "crystal", "--checkpoint", faulty_checkpoint, "--out", tmp_path / "run")
    result = ran(sample(*arguments, "--num-samples", 30), 3)
    run = read_run(tmp_path / "run")
    good, bad = list(run.finished()), list(run.failed())
    assert len(good) + len(bad) == 30 and good and bad
    assert all("no cell has lengths" in record["error"]["message"] for record in bad)
    assert f"{len(bad)} failed, the first of them {bad[0]['id']}: no cell has lengths" in result.stderr
    assert len(structures(tmp_path / "run" / "crystals.cif")) == len(good)
    ran(sample(*arguments, "--num-samples", 30), 3)  # nothing to do, and still not all well
    ran(sample(*arguments, "--num-samples", 30, "--retry-failed"), 3)
    assert [record["attempt"] for record in read_run(tmp_path / "run").failed()] == [2] * len(bad)


def test_fail_fast_stops_at_the_first(sample: Sample, tmp_path: Path, faulty_checkpoint: Path) -> None:
    arguments = ("--kind", "crystal", "--checkpoint", faulty_checkpoint, "--out", tmp_path / "run")
    result = ran(sample(*arguments, "--num-samples", 30, "--batch-size", 1, "--fail-fast"), 1)
    assert "no cell has lengths" in result.stderr
    assert read_run(tmp_path / "run").manifest.count("failed") == 1


def test_numbers_that_are_no_numbers_fail_alone(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from polydit.molgen.model import AtomAutoencoder, DecodedAtoms

    original = AtomAutoencoder.decode

    def decode(self: AtomAutoencoder, *arguments: Any) -> DecodedAtoms:
        decoded = original(self, *arguments)
        positions = decoded.positions_nm.clone()
        positions[0], positions[1, 0] = float("nan"), 1e6
        changed: DecodedAtoms = replace(decoded, positions_nm=positions)
        return changed

    monkeypatch.setattr(AtomAutoencoder, "decode", decode)
    ran(sample("--num-samples", 4, "--atoms", 9, "--out", tmp_path), 3)
    reasons = [record["error"]["message"] for record in read_run(tmp_path).failed()]
    assert "not a finite number" in reasons[0] and "8.89e+06 Å" in reasons[1]
    assert len(items(tmp_path)) == 2


def test_out_of_memory_halves_the_batch_and_goes_on(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from polydit.molgen.pipeline import MolgenPipeline

    original, sizes = MolgenPipeline.__call__, list[int]()

    def call(self: MolgenPipeline, requests: Any, **options: Any) -> Any:
        sizes.append(len(requests))
        if len(requests) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return original(self, requests, **options)

    monkeypatch.setattr(MolgenPipeline, "__call__", call)
    ran(sample("--num-samples", 16, "--atoms", 9, "--batch-size", 8, "--out", tmp_path))
    assert sizes == [8, 4, 4, 4, 4]
    assert len(items(tmp_path)) == 16
