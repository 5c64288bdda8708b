"""`molgen sample`: what it refuses before a weight is loaded, and what fails by itself while the rest goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import Result

from polydit.core.jobs import RunFolder, read_run
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
