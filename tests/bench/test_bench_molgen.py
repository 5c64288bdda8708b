"""The bench of molgen at a tiny size: both sides compute the same, and every figure comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from diffusers import FlowMatchEulerDiscreteScheduler

from polydit.bench import forward, job, training
from polydit.bench.adit_s import AditS, Size, adit_s, in_precision, molecule_plan, request_of
from polydit.bench.cli import polydit_bench
from polydit.bench.plots import rounds_plot
from polydit.bench.processes import memory_row
from polydit.molgen.data.structure import Structure
from polydit.molgen.pipeline import MolgenPipeline

TINY = Size(width=48, depth=2, decoder_width=48, decoder_depth=1)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that wait for each other on a busy machine would make these tests slow, not better."""
    for module in (job, training):
        monkeypatch.setattr(module, "THREADS", 1)


@pytest.fixture(scope="module")
def both() -> AditS:
    return adit_s(TINY)


def positions(results: job.Results) -> dict[str, np.ndarray]:
    assert all(isinstance(result, Structure) for result in results)
    return {result.id: result.positions for result in results if isinstance(result, Structure)}


def test_both_sides_make_the_same_molecules(both: AditS) -> None:
    """In other batches, in another order, with other code: the same noise gives the same atoms."""
    plan = molecule_plan(12)
    requests = [request_of(sample) for sample in plan]
    theirs = positions(both.plain_job(requests, batch_size=5, num_steps=4, guidance_scale=job.GUIDANCE))
    ours = positions(job.our_job(both.pipeline, plan, num_steps=4))
    assert theirs.keys() == ours.keys() and len(ours) == 12
    for name, atoms in ours.items():
        np.testing.assert_allclose(atoms, theirs[name], atol=2e-5)


def test_bfloat16_is_near_float32_but_not_the_same(both: AditS) -> None:
    plan = molecule_plan(4)
    exact, rough = (
        positions(job.our_job(pipeline, plan, num_steps=3))
        for pipeline in (both.pipeline, in_precision(both.pipeline, torch.bfloat16))
    )
    moved = max(np.abs(exact[name] - rough[name]).max() for name in exact)
    assert 0 < moved < 0.05 * max(np.abs(atoms).max() for atoms in exact.values())


def test_a_precision_changes_nothing_else(both: AditS) -> None:
    """The scheduler's settings come along: another time grid would look like a rounding error."""
    shifted = MolgenPipeline(
        autoencoder=both.pipeline.autoencoder,
        denoiser=both.pipeline.denoiser,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=2.5),
    )
    plan = molecule_plan(3)
    here, there = (
        positions(job.our_job(pipeline, plan, num_steps=4))
        for pipeline in (shifted, in_precision(shifted, torch.float32))
    )
    assert all(np.array_equal(here[name], there[name]) for name in here)
    assert both.pipeline.denoiser.dtype == torch.float32
    assert in_precision(shifted, torch.bfloat16).denoiser.dtype == torch.bfloat16


def test_sizes_follow_qm9() -> None:
    sizes = [sample.num_atoms for sample in molecule_plan(2000)]
    assert min(sizes) >= 3 and max(sizes) <= 29
    assert abs(np.mean(sizes) - 18.03) < 0.3


def test_forward_rows() -> None:
    rows = list(forward.forward_rows(quick=True, size=TINY))
    assert [row.key for row in rows][:2] == ["forward ours", "forward ours, modulation made before"]
    for row in rows:
        assert row.value is not None and 0 < row.value < 20
        assert 0 < row.details["deviation"] < (0.1 if "bf16" in row.key else 1e-4)
        picture = rounds_plot(row)
        assert picture is not None and picture.startswith("<svg") and "plain" in picture


def test_job_rows() -> None:
    rows = list(job.job_rows(quick=True, size=TINY))
    assert [row.key for row in rows] == ["job ours", "job ours, fp32"]
    assert all(row.value is not None and row.value > 0.1 and row.more_is_better for row in rows)


def test_overhead_and_training_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0.2 < (forward.overhead_row(quick=True, size=TINY).value or 0) < 20
    monkeypatch.setattr(training, "ATOMS", 12)
    assert (training.training_row(quick=True).value or 0) > 0


def test_the_two_training_steps_learn_the_same() -> None:
    """What is compared differs in precision only: the gradients agree to rounding of bfloat16."""
    ours, plain = training.contestants()
    for model in (ours, plain):
        training.forward_backward(model, 4)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        if a.grad is not None and b.grad is not None and b.grad.abs().max() > 1e-4:
            assert torch.nn.functional.cosine_similarity(a.grad.flatten(), b.grad.flatten(), dim=0) > 0.95


def test_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    row = memory_row(quick=True, checkpoint=str(tmp_path))
    assert row.value is None and str(tmp_path) in row.how and row.line()["measured"] == "not measured"


def test_the_command_writes_its_figures(invoke: Callable[..., Result], tmp_path: Path) -> None:
    done = invoke(polydit_bench, "molgen", "--quick", "--only", "help", "--out", "results")
    assert done.exit_code == 0, done.output
    assert "molgen --help" in done.output and "torch" in done.output
    results = json.loads((tmp_path / "results" / "results.json").read_text(encoding="utf-8"))
    assert results["quick"] is True and results["cores"] >= 1
    (row,) = results["rows"]
    assert row["key"] == "help" and row["value"] > 0 and len(row["details"]["seconds"]) == 5


def test_json_lines(invoke: Callable[..., Result]) -> None:
    done = invoke(polydit_bench, "molgen", "--quick", "--only", "help", "--json")
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["unit"] == "s"
