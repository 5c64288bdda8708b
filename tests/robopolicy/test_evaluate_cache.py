"""`robopolicy evaluate --cache` and `polydit calibrate robopolicy`: what is recorded, measured and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

from polydit.core.cli.main import polydit
from polydit.core.errors import CheckpointError, InputError
from polydit.core.jobs import read_run
from polydit.core.sampling.calibration import Sampler, Setting, calibrate, in_one_run
from polydit.robopolicy.calibration import sampler
from polydit.robopolicy.cli import robopolicy
from polydit.robopolicy.data.features import features_of
from polydit.robopolicy.data.writer import LeRobotWriter
from polydit.robopolicy.domain import STARTER
from polydit.robopolicy.episode import Episode

Invoke = Callable[..., Result]
TASK = "drawer-open-v3"
NEWTON = "newton(every=3,order=2,warm_up=2,cool_down=0,first=1,time=step)"
SHORT = ("--task", TASK, "--episodes", 1, "--max-steps", 8, "--no-report", "--plots", 0)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the starter that suggests a cache."""
    assert STARTER.path is not None
    copy = Path(shutil.copytree(STARTER.path, tmp_path / "checkpoint"))
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "cache": "newton"}))
    return copy


def test_what_the_cache_did_is_recorded(invoke: Invoke, checkpoint: Path, tmp_path: Path) -> None:
    done = invoke(
        robopolicy, "evaluate", *SHORT, "--checkpoint", checkpoint, "--json", "--out", tmp_path / "run"
    )
    assert done.exit_code == 0, done.output
    run, (record, summary) = read_run(tmp_path / "run"), map(json.loads, done.stdout.splitlines())
    assert run.options["cache"] == NEWTON == run.provenance["cache"]["setting"]
    expected = {"runs": 2, "steps": 10, "full_steps": 6, "skipped_steps": 4}  # two chunks for eight actions
    assert expected.items() <= run.provenance["cache"].items()
    assert expected.items() <= record["measures"]["cache"].items()
    assert summary["cache"]["estimated_error"] == pytest.approx(
        record["measures"]["cache"]["estimated_error"]
    )
    other = invoke(robopolicy, "evaluate", *SHORT, "--cache", "none", "--out", tmp_path / "run")
    assert other.exit_code == 2 and "cache" in other.stderr


def test_a_cache_without_effect_is_said_once(invoke: Invoke, tmp_path: Path) -> None:
    words = (*SHORT, "--num-steps", 2, "--cache", "newton", "--out", tmp_path / "run")
    done = invoke(robopolicy, "evaluate", *words)
    assert done.exit_code == 0, done.output
    assert done.stderr.count("had no effect: every step was computed") == 1


def test_a_baseline_has_no_cache(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke(robopolicy, "evaluate", *SHORT, "--policy", "zero", "--cache", "newton", "--out", tmp_path)
    assert done.exit_code == 2 and "--cache: a baseline has none" in done.stderr


# ---------------------------------------------------------------------------------------------------------
# What is calibrated.


def test_chunks_are_measured_from_what_a_simulator_shows(checkpoint: Path) -> None:
    found, chunks = sampler(str(checkpoint), 2, {"task": TASK, "seed": "7"})
    assert isinstance(chunks, Sampler) and found.path == checkpoint
    assert chunks.default == Setting(num_steps=5, solver="dpm", cache="newton")
    states = [seen["observation.state"] for seen in chunks.observations]
    assert not np.array_equal(*states)  # two layouts
    assert not np.array_equal(chunks.noise[0], chunks.noise[1])
    calibration = calibrate(
        chunks, [Setting(num_steps=5, solver="dpm")], Setting(num_steps=40, solver="dpm"), rounds=1
    )
    cached, plain = calibration.measured
    assert 0.0 < plain.moved < plain.error < 0.5 and cached.moved == 0.0
    _, again = sampler(str(checkpoint), 3, {"task": TASK, "seed": "7"})
    assert np.array_equal(
        again.observations[1]["observation.state"], states[1]
    )  # more items are other items besides


def test_a_schedule_is_found_on_all_chunks_in_one_run(checkpoint: Path) -> None:
    _, chunks = sampler(str(checkpoint), 2, {"task": TASK})
    plain, calls = Setting(num_steps=6, solver="dpm"), list[int]()
    hook = chunks.network.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    alone, together = chunks(plain), in_one_run(chunks)(plain)
    hook.remove()
    assert calls == [1] * 12 + [2] * 6
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_sharing_is_found_for_a_policy(invoke: Invoke, checkpoint: Path) -> None:
    words = ("--checkpoint", checkpoint, "--num-samples", 2, "--request", f"task={TASK}", "--rounds", 1)
    done = invoke(polydit, "share", "robopolicy", *words, "--every", 2, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["num_steps"] == 5 and len(summary["full_steps"]) == 2


def test_chunks_are_measured_from_what_a_data_set_shows(tiny_folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            index=index,
            fps=20.0,
            task="push the button",
            state=rng.normal(0.0, 0.5, (9, 5)).astype(np.float32),
            action=rng.normal(0.0, 0.5, (9, 3)).astype(np.float32),
        )
        for index in range(2)
    ]
    features = features_of(episodes[0], pictures="image")
    with LeRobotWriter(tmp_path / "data", fps=20.0, features=features, robot_type="test arm") as writer:
        for episode in episodes:
            writer.add(episode)
    _, chunks = sampler(str(tiny_folder), 2, {"data": str(tmp_path / "data")})
    for seen, episode in zip(chunks.observations, episodes, strict=True):
        assert np.array_equal(seen["observation.state"], episode.state[4]) and seen["task"] == episode.task
    assert [chunk.shape for chunk in chunks(chunks.default)] == [(6, 3)] * 2
    with pytest.raises(InputError, match="only 2 episodes"):
        sampler(str(tiny_folder), 3, {"data": str(tmp_path / "data")})


def test_what_cannot_be_calibrated_is_refused_by_name(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no colour; expected env, task, seed or data"):
        sampler(None, 1, {"colour": "red"})
    with pytest.raises(InputError, match="seed is 'one'; expected a whole number"):
        sampler(None, 1, {"seed": "one"})
    with pytest.raises(InputError, match="was trained on no task of pusht"):
        sampler(str(tiny_folder), 1, {"env": "pusht"})
    with pytest.raises(CheckpointError, match="5 numbers in the policy, 39 numbers in the environment"):
        sampler(str(tiny_folder), 1, {})
    with pytest.raises(CheckpointError, match="was not trained on the instruction"):
        sampler(None, 1, {"task": "assembly-v3"})
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "ancestral"))
    index = json.loads((folder / "model_index.json").read_text())
    index["model_settings"] = {"solver": "ddpm"}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"draws new noise in every step.*`robopolicy evaluate`"):
        sampler(str(folder), 1, {})
