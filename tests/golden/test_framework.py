"""The reader of golden cases itself: its rule for weights and inputs, its comparison, the folder of further cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from polydit.core.testing.golden import GoldenCase, GoldenMismatchError

VALUES = np.random.RandomState(3).standard_normal((2, 3)).astype(np.float32)


def make(folder: Path, **changes: Any) -> GoldenCase:
    """A case of a system that nobody serves, whose output is its input."""
    spec: dict[str, Any] = {
        "system": "no-such-system",
        "config": {"width": 3},
        "weights": {
            "seed": 7,
            "scale": 0.5,
            "kept": ["table"],
            "positive": ["norm.weight"],
            "state_dict": [
                ["table", [2], "float32"],
                ["norm.weight", [3], "float32"],
                ["steps", [], "int64"],
                ["linear.weight", [2, 3], "float32"],
            ],
        },
        "inputs": {
            "x": {"kind": "normal", "seed": 3, "shape": [2, 3]},
            "t": {"kind": "uniform", "seed": 4, "low": 1.0, "high": 2.0, "shape": [2]},
            "mask": {"kind": "bool", "seed": 5, "p": 0.5, "shape": [4]},
            "label": {"kind": "integers", "seed": 6, "low": 0, "high": 9, "shape": [3]},
            "ids": {"kind": "values", "values": [[0.0], [1.0]]},
            "numbers": {"kind": "values", "values": [1, 0], "dtype": "bool"},
        },
        "outputs": {
            "y": {
                "shape": [2, 3],
                "mean": float(VALUES.mean(dtype=np.float64)),
                "std": float(VALUES.std(dtype=np.float64)),
                "at": [0, 4],
                "values": [float(VALUES[0, 0]), float(VALUES[1, 1])],
            }
        },
        "tolerance": 1e-4,
        "notes": "",
        **changes,
    }
    path = folder / "made-up.json"
    path.write_text(json.dumps(spec))
    return GoldenCase.read(path)


def test_weights_follow_the_rule(tmp_path: Path) -> None:
    case = make(tmp_path)
    state = case.state_dict()
    assert list(state) == ["norm.weight", "linear.weight"]  # what the constructor keeps is not made up
    expected = np.random.RandomState(7 + 3).standard_normal((2, 3)) * 0.5  # seed + position in the list
    assert torch.equal(state["linear.weight"], torch.from_numpy(expected.astype(np.float32)))
    assert (state["norm.weight"] >= 1).all()
    assert list(case.state_dict({"table": torch.ones(2)})) == ["table", "norm.weight", "linear.weight"]


def test_inputs_follow_the_rule(tmp_path: Path) -> None:
    given = make(tmp_path).inputs()
    dtypes = {name: str(value.dtype).removeprefix("torch.") for name, value in given.items()}
    assert dtypes == {
        "x": "float32", "t": "float32", "mask": "bool", "label": "int64", "ids": "float32", "numbers": "bool",
    }  # fmt: skip
    assert torch.equal(given["x"], torch.from_numpy(VALUES))
    assert (given["t"] >= 1).all() and (given["t"] < 2).all()


def test_equal_outputs_pass_with_their_deviation(tmp_path: Path) -> None:
    case = make(tmp_path)
    assert case.compare({"y": case.inputs()["x"]}) == {"y": pytest.approx(0.0, abs=1e-7)}
    assert case.check("y", case.inputs()["x"] + 5e-5) == pytest.approx(5e-5, rel=1e-2)


def test_a_deviation_is_told_with_its_place(tmp_path: Path) -> None:
    case = make(tmp_path)
    wrong = case.inputs()["x"].clone()
    wrong[1, 1] += 0.5
    with pytest.raises(GoldenMismatchError) as caught:
        case.check("y", wrong)
    message = str(caught.value)
    for part in (
        "made-up",
        "output y",
        "5.000e-01",
        "(1, 1)",
        f"expected {VALUES[1, 1]:.5g}"[:12],
        "tolerance 0.0001",
    ):
        assert part in message


def test_a_deviation_where_no_value_is_stored_is_found_by_the_moments(tmp_path: Path) -> None:
    case = make(tmp_path)
    wrong = case.inputs()["x"].clone()
    wrong[0, 2] += 0.5  # not among the stored values
    with pytest.raises(GoldenMismatchError, match="mean of all values"):
        case.check("y", wrong)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_fails(value: float, tmp_path: Path) -> None:
    case = make(tmp_path)
    wrong = case.inputs()["x"].clone()
    wrong[1, 1] = value
    with pytest.raises(GoldenMismatchError, match=r"\(1, 1\)"):
        case.check("y", wrong)


def test_a_missing_output_or_another_shape_fails(tmp_path: Path) -> None:
    case = make(tmp_path)
    with pytest.raises(GoldenMismatchError, match="not computed: y"):
        case.compare({})
    with pytest.raises(GoldenMismatchError, match=r"shape \[3, 2\], expected \[2, 3\]"):
        case.compare({"y": case.inputs()["x"].T})


def test_cases_of_a_further_folder_run_and_those_without_adapter_are_listed(tmp_path: Path) -> None:
    make(tmp_path)
    broken = json.loads((Path(__file__).parent / "cases" / "gfmdiff-gfloss.json").read_text())
    broken["tolerance"] = 1e-12
    (tmp_path / "gfmdiff-gfloss.json").write_text(json.dumps(broken))
    (tmp_path / "gfmdiff-extra.json").write_text(json.dumps({**broken, "tolerance": 1e-5}))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(Path(__file__).with_name("test_cases.py")), "-v",
         "-p", "no:cacheprovider", "-oaddopts=--import-mode=importlib",  # not the shape checks: they start slowly
         "-k", "gfmdiff-gfloss or gfmdiff-extra or made-up"],
        env={**os.environ, "POLYDIT_GOLDEN_CASES": str(tmp_path)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    results = {
        line.split("[")[1].split("]")[0]: line for line in lines if "::test_case[" in line and "%" in line
    }
    assert "PASSED" in results["gfmdiff-extra"], done.stdout
    assert "FAILED" in results["gfmdiff-gfloss"]  # the further folder's case takes the place of ours
    assert "SKIPPED" in results["made-up"]
    listed = lines[next(i for i, line in enumerate(lines) if "without an adapter" in line) + 1]
    assert listed.endswith("test_case[made-up]")
    assert done.returncode == 1
