"""`pointgen complete` and `pointgen interpolate`: what is known is kept, and the ends of a row are the ends."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from polydit.core.jobs import read_run
from polydit.pointgen.cli import pointgen
from polydit.pointgen.cloud import Cloud
from polydit.pointgen.data.writers import render

Command = Callable[..., Result]
FAR = np.float32([100.0, -20.0, 3.0])


@pytest.fixture
def command(invoke: Command, tiny_checkpoint: Path) -> Command:
    """``command("complete", "scan.ply", "--out", out)``: no report, NPY, the tiny checkpoint."""

    def call(name: str, *arguments: object) -> Result:
        common = ("--no-report", "--format", "npy", "--checkpoint", tiny_checkpoint)
        return invoke(pointgen, name, *arguments, *common)

    return call


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Forty points of a plate, far from the origin and large."""
    points = (
        np.random.default_rng(0).uniform(-1, 1, (40, 3)).astype(np.float32) * np.float32([8, 0.1, 8]) + FAR
    )
    path = tmp_path / "scan.ply"
    path.write_bytes(render(Cloud(id="scan", points=points), "ply"))
    np.save(tmp_path / "known.npy", points)
    return path


def ran(result: Result, code: int = 0) -> Result:
    assert result.exit_code == code, result.output
    return result


def result_of(out: Path, name: str) -> np.ndarray:
    return np.load(out / "items" / f"{name}.npy")


@pytest.mark.parametrize("normalise", ["none", "unit-box"])
def test_known_points_come_first_and_stay_as_they_are(
    normalise: str, command: Command, scan: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ("--category", "chair", "--points", 96, "--num-samples", 2, "--normalise", normalise)
    ran(command("complete", scan, *arguments, "--out", out))
    known = np.load(tmp_path / "known.npy")
    first, second = (result_of(out, f"scan-00{k}") for k in range(2))
    for completed in (first, second):
        assert completed.shape == (96, 3)
        assert np.array_equal(completed[:40], known)
    assert not np.allclose(first[40:], second[40:])
    for record in read_run(out).finished():
        assert record["measures"]["known_points"] == 40
        assert [source["path"] for source in record["inputs"]] == [str(scan)]


def test_a_unit_box_puts_the_rest_beside_the_known_points(
    command: Command, scan: Path, tmp_path: Path
) -> None:
    for normalise in ("none", "unit-box"):
        out = tmp_path / normalise
        ran(command("complete", scan, "--points", 96, "--normalise", normalise, "--out", out))
    boxed, plain = (result_of(tmp_path / name, "scan-000")[40:] for name in ("unit-box", "none"))
    assert np.linalg.norm(np.median(boxed, axis=0) - FAR) < 40
    assert np.linalg.norm(np.median(plain, axis=0) - FAR) > 60  # the network works about its data's mean


def test_the_same_however_it_is_moved(command: Command, scan: Path, tmp_path: Path) -> None:
    points = np.load(tmp_path / "known.npy")
    folder = tmp_path / "moved"
    folder.mkdir()
    np.save(folder / "scan.npy", (points - FAR) * np.float32(0.5))
    arguments = ("--points", 96, "--normalise", "unit-box", "--category", "table")
    ran(command("complete", scan, *arguments, "--out", tmp_path / "a"))
    ran(command("complete", folder, *arguments, "--out", tmp_path / "b"))
    one, other = (result_of(tmp_path / name, "scan-000") for name in ("a", "b"))
    np.testing.assert_allclose((one - FAR) * 0.5, other, atol=2e-3)


def test_a_bad_file_fails_alone(command: Command, scan: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    np.save(bad / "empty.npy", np.zeros((0, 3), np.float32))
    np.save(bad / "hole.npy", np.full((9, 3), np.nan, np.float32))
    np.save(bad / "many.npy", np.random.default_rng(1).normal(size=(96, 3)).astype(np.float32))
    (bad / "torn.ply").write_bytes(scan.read_bytes()[:150])
    out = tmp_path / "run"
    result = ran(command("complete", scan, bad, "--points", 96, "--out", out), 3)
    assert [record["id"] for record in read_run(out).finished()] == ["scan-000"]
    reasons = {record["id"]: record["error"]["message"] for record in read_run(out).failed()}
    assert set(reasons) == {"empty-000", "hole-000", "many-000", "torn-000"}
    assert "not finite" in reasons["hole-000"]
    assert "96 known points leave none of 96 to add" in reasons["many-000"]
    assert "4 failed" in result.stderr


def test_without_a_category_the_network_is_told_none(command: Command, scan: Path, tmp_path: Path) -> None:
    ran(command("complete", scan, "--points", 64, "--out", tmp_path / "run"))
    run = read_run(tmp_path / "run")
    assert (run.options["category"], run.options["guidance_scale"]) == ("any", 0.0)
    assert next(run.finished())["measures"]["category"] == ""


REFUSED = {
    "no input": ([], "Missing argument"),
    "an input that is not there": (["absent.ply"], "absent.ply"),
    "a category that it lacks": (["scan.ply", "--category", "boat"], "makes no 'boat'"),
    "two categories": (["scan.ply", "--category", "chair,table"], "expected one category"),
    "guidance by nothing": (["scan.ply", "--guidance-scale", "2"], "no category to guide by"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_completed(case: str, command: Command, scan: Path, tmp_path: Path) -> None:
    arguments, message = REFUSED[case]
    result = ran(command("complete", *arguments, "--out", tmp_path / "run"), 2)
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------------------
# Interpolation.


def test_the_ends_of_a_row_are_the_samples_of_both_seeds(
    command: Command, invoke: Command, tmp_path: Path
) -> None:
    ran(command("sample", "--category", "chair", "--num-samples", 2, "--points", 64, "--out", tmp_path / "s"))
    first, last = read_run(tmp_path / "s").finished()
    ends = ("--from-seed", first["seed"], "--to-seed", last["seed"], "--steps", 5, "--points", 64)
    ran(command("interpolate", "--category", "chair", *ends, "--out", tmp_path / "row"))
    row = [result_of(tmp_path / "row", f"chair-step-00{k}") for k in range(5)]
    for end, record in ((row[0], first), (row[-1], last)):
        np.testing.assert_allclose(end, result_of(tmp_path / "s", record["id"]), atol=1e-4)
    steps = [float(np.abs(b - a).mean()) for a, b in pairwise(row)]
    assert 0 < max(steps) < float(np.abs(row[-1] - row[0]).mean())  # each is a part of the way
    measures = [record["measures"]["mix"] for record in read_run(tmp_path / "row").finished()]
    assert measures == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_row_of_another_length_is_another_row(command: Command, tmp_path: Path) -> None:
    row = ("--category", "chair", "--from-seed", 1, "--to-seed", 2, "--points", 32, "--out", tmp_path)
    ran(command("interpolate", *row, "--steps", 3))
    assert "steps (3 before, 4 now)" in ran(command("interpolate", *row, "--steps", 4), 2).stderr
    assert "--steps" in ran(command("interpolate", *row, "--steps", 1), 2).stderr
    assert "no row" in ran(command("interpolate", *row, "--solver", "ddpm"), 2).stderr
