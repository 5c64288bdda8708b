"""`polydit calibrate` on the domains that are installed: what it refuses, and what it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from polydit.core.checkpoints.checkpoint import INDEX
from polydit.core.cli.main import polydit
from polydit.core.errors import InputError
from polydit.core.sampling.calibration import Setting
from polydit.pointgen.calibration import sampler

Invoke = Callable[..., Result]
CALIBRATED = "pointgen"


def test_an_unknown_domain_is_refused_with_those_there_are(invoke: Invoke) -> None:
    done = invoke(polydit, "calibrate", "poems")
    assert done.exit_code == 2 and CALIBRATED in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--request", "category"), "is no pair"),
        (("--request", "colour=red"), "there is no colour"),
        (("--request", "points=many"), "expected a whole number"),
        (("--request", "category=horse"), "horse"),
        (("--solver", "magic"), "there is no solver magic"),
        (("--checkpoint", "nowhere"), "nowhere"),
    ],
)
def test_a_request_that_cannot_be_is_refused(
    invoke: Invoke, arguments: tuple[str, str], message: str
) -> None:
    done = invoke(polydit, "calibrate", CALIBRATED, *arguments)
    assert done.exit_code == 2 and message in done.stderr, done.stderr


def test_the_chosen_setting_becomes_the_checkpoints_own(invoke: Invoke, clouds: Path, tmp_path: Path) -> None:
    out = tmp_path / "calibration"
    usual = json.loads((clouds / INDEX).read_text())["num_steps"]
    arguments = [
        *("--checkpoint", clouds, "--num-samples", 1, "--rounds", 1, "--request", "points=64"),
        *("--num-steps", 6, "--cache", "newton", "--cache", "ddt", "--solver", "ddim"),
        *("--tolerance", 1000, "--write", "--out", out, "--json"),
    ]
    done = invoke(polydit, "calibrate", CALIBRATED, *arguments)
    assert done.exit_code == 0, done.output
    *rows, summary = map(json.loads, done.stdout.splitlines())
    assert {(row["num_steps"], row["cache"]) for row in rows} == {(usual, "none"), (6, "none"), (6, "newton")}
    fastest = min(rows, key=lambda row: row["seconds"])
    assert {key: summary["chosen"][key] for key in ("num_steps", "cache")} == {
        key: fastest[key] for key in ("num_steps", "cache")
    }
    assert summary["fewer_steps"]["cache"] == "none" and summary["fewer_steps"]["num_steps"] == 6
    index = json.loads((clouds / "model_index.json").read_text())
    chosen = (fastest["num_steps"], fastest["solver"], fastest["cache"])
    assert (index["num_steps"], index["solver"], index["cache"]) == chosen and chosen[1] == "ddim"
    _, found = sampler(str(clouds), 1, {})
    assert (found.default.num_steps, found.default.solver, found.default.cache) == chosen
    saved = json.loads((out / "calibration.json").read_text())
    assert [reason for setting, reason in saved["refused"].items() if "ddt" in setting]
    assert "<svg" in (out / "calibration.svg").read_text()
    (out / "notes.txt").write_text("mine")
    again = invoke(polydit, "calibrate", CALIBRATED, *arguments)
    assert again.exit_code == 2 and "Add --overwrite" in again.stderr
    assert json.loads((out / "calibration.json").read_text()) == saved
    again = invoke(polydit, "calibrate", CALIBRATED, *arguments, "--overwrite")
    assert again.exit_code == 0, again.output
    assert json.loads((out / "calibration.json").read_text()) != saved  # times differ
    assert (out / "notes.txt").read_text() == "mine"


def test_what_was_written_is_what_a_pipeline_takes(invoke: Invoke, clouds: Path) -> None:
    index = json.loads((clouds / INDEX).read_text())
    (clouds / INDEX).write_text(json.dumps({**index, "num_steps": 9, "cache": "newton(every=4)"}))
    _, found = sampler(str(clouds), 1, {"points": "64"})
    for solver in ("auto", found.default.solver):  # the checkpoint's own, by either name
        clouds = found(Setting(num_steps=3, solver=solver))
        assert len(clouds) == 1 and clouds[0].shape == (64, 3)
    with pytest.raises(InputError, match="cannot be sampled by euler"):
        found(Setting(num_steps=3, solver="euler"))
    assert (found.default.num_steps, found.default.cache) == (9, "newton(every=4)")
