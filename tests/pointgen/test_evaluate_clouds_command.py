"""`pointgen evaluate` as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from polydit.core.cli.group import DomainGroup
from polydit.core.jobs import ItemFailure, ItemResult, RunFolder
from polydit.pointgen.cli.evaluate import evaluate

Call = Callable[..., Result]
Evaluate = Callable[..., Result]


@pytest.fixture
def call(invoke: Call) -> Evaluate:
    group = DomainGroup(name="pointgen", commands={"evaluate": evaluate})
    return lambda *words: invoke(group, "evaluate", *words)


def write_clouds(folder: Path, count: int, *, seed: int, points: int = 128, scale: float = 1.0) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for index in range(count):
        values = random.uniform(-0.5, 0.5, (points, 3)) * random.uniform(0.5, 1.0, 3) * scale
        np.save(folder / f"{index:03d}.npy", values.astype(np.float32))
    return folder


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A data set with two categories; validation clouds hold 384 points, of which the last 128 count."""
    for category in ("chair", "table"):
        write_clouds(tmp_path / "ds" / category / "val", 6, seed=len(category), points=384)
    return tmp_path / "ds" / "val"


def test_a_folder_against_a_category(call: Evaluate, tmp_path: Path, reference: Path) -> None:
    samples = write_clouds(tmp_path / "samples", 6, seed=9)
    options = (
        samples,
        "--reference",
        reference,
        "--category",
        "chair",
        "--points",
        128,
        "--metric",
        "cd,emd,jsd",
    )
    result = call(*options, "--emd-points", 32, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    for words in (
        "chair",
        "1-nna-cd",
        "cov-cd",
        "mmd-emd",
        "jsd",
        "128 points",
        "L2 not squared",
        "32 points",
    ):
        assert words in result.output
    figures = json.loads((tmp_path / "out" / "figures.json").read_text())["categories"]
    assert list(figures) == ["chair"]
    assert figures["chair"]["1-nna-cd"]["denominator"] == 12
    assert len((tmp_path / "out" / "nearest.csv").read_text().splitlines()) == 1 + 2 * 6
    assert not list((tmp_path / "out").glob(".tiles-*"))
    again = call(*options, "--out", tmp_path / "out")
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    assert call(*options, "--emd-points", 32, "--out", tmp_path / "out", "--overwrite").exit_code == 0


def write_run(out: Path, categories: list[str], *, failed: int = 0) -> Path:
    random = np.random.default_rng(0)
    folder = RunFolder.open(out, command="pointgen sample", options={}, provenance={})
    with folder:
        items = []
        for index, category in enumerate(categories):
            points = (random.uniform(-0.5, 0.5, (128, 3)) * random.uniform(0.5, 1.0, 3)).astype(np.float32)
            text = "".join(f"{x} {y} {z}\n" for x, y, z in points.tolist()).encode()
            name = f"{category}-{index}"
            items.append(
                ItemResult(
                    id=name, index=index, seed=0, files={".xyz": text}, measures={"category": category}
                )
            )
        lost = [
            ItemFailure(
                id=f"lost-{i}",
                index=len(categories) + i,
                seed=0,
                error="points",
                message="not finite",
                measures={"category": "chair"},
            )
            for i in range(failed)
        ]
        folder.commit([*items, *lost])
    return out


def test_a_run_folder_by_category(call: Evaluate, tmp_path: Path, reference: Path) -> None:
    run = write_run(tmp_path / "run", ["chair"] * 6 + ["table"] * 6)
    result = call(run, "--reference", reference, "--points", 128, "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)["categories"]
    assert list(figures) == ["chair", "table"]
    assert figures["table"]["cov-cd"]["denominator"] == 6


def test_an_item_that_failed_in_the_run_is_named_and_exits_3(
    call: Evaluate, tmp_path: Path, reference: Path
) -> None:
    run = write_run(tmp_path / "run", ["chair"] * 5, failed=1)
    options = (run, "--reference", reference, "--points", 128)
    result = call(*options)
    assert result.exit_code == 2
    assert "chair 5 against 6" in result.stderr and "--limit 5" in result.stderr
    result = call(*options, "--limit", 5)
    assert result.exit_code == 3, result.output
    assert "lost-0: it failed in the run: not finite" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--points", "512"], "384"),
        (["--limit", "0"], "--limit 0"),
        (["--category", "sofa"], "sofa"),
        (["--metric", "fid"], "fid"),
    ],
)
def test_refusals(call: Evaluate, tmp_path: Path, reference: Path, options: list[str], words: str) -> None:
    samples = write_clouds(tmp_path / "samples", 6, seed=9)
    result = call(samples, "--reference", reference, "--category", "chair", "--points", 128, *options)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_reference_in_other_units_is_refused(call: Evaluate, tmp_path: Path, reference: Path) -> None:
    samples = write_clouds(tmp_path / "samples", 6, seed=9, scale=10.0)
    options = (samples, "--reference", reference, "--category", "chair", "--points", 128)
    result = call(*options)
    assert result.exit_code == 2 and "normalised differently" in result.stderr
    assert call(*options, "--normalise", "unit-box").exit_code == 0


def test_a_reference_with_several_splits_is_refused(call: Evaluate, tmp_path: Path, reference: Path) -> None:
    write_clouds(tmp_path / "ds" / "chair" / "train", 2, seed=4)
    samples = write_clouds(tmp_path / "samples", 6, seed=9)
    result = call(samples, "--reference", reference.parent, "--points", 128)
    assert result.exit_code == 2
    assert "train, val" in result.stderr and str(reference) in result.stderr


def test_kill_9_and_go_on(call: Evaluate, tmp_path: Path) -> None:
    """The tiles that survived are taken as they are, and the figures are those of an evaluation left in peace."""
    samples = write_clouds(tmp_path / "samples", 30, seed=1)
    reference = write_clouds(tmp_path / "reference", 30, seed=2)
    options = (samples, "--reference", reference, "--points", 128, "--metric", "emd", "--emd-points", 128)
    peaceful = call(*options, "--json")
    assert peaceful.exit_code == 0, peaceful.output
    out = tmp_path / "out"
    words = [str(word) for word in (*options, "--out", out)]
    program = "from polydit.pointgen.cli.evaluate import evaluate; evaluate()"
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stderr=subprocess.PIPE, env=os.environ
    ) as child:
        deadline = time.monotonic() + 300
        while not list(out.glob(".tiles-*/pairs-*.npy")):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert list(out.glob(".tiles-*/pairs-*.npy")) and not (out / "figures.json").exists()
    result = call(*options, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads(peaceful.stdout)
    assert (out / "figures.json").exists() and not list(out.glob(".tiles-*"))
