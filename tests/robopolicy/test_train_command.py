"""`robopolicy train`: from a data set to a policy that acts, exact after an interruption, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import save_file

from polydit.core.cli.config import apply_settings
from polydit.core.errors import InputError
from polydit.core.training.trainer import read_metrics
from polydit.robopolicy import load
from polydit.robopolicy.cli import robopolicy
from polydit.robopolicy.data.features import features_of
from polydit.robopolicy.data.pictures import ArrayFrames
from polydit.robopolicy.data.readers import read_dataset
from polydit.robopolicy.data.writer import LeRobotWriter
from polydit.robopolicy.episode import Episode
from polydit.robopolicy.fit import FirstEpisodes, fit, prepare
from polydit.robopolicy.policy import RobotPolicy
from polydit.robopolicy.recipe import Recipe

TINY = {
    "network.width": 32, "network.depth": 1, "network.heads": 2, "language_width": 8,
    "training.steps": 6, "training.batch_size": 4, "training.log_every": 1, "training.save_every": 2,
    "training.warmup": 1,
}  # fmt: skip
FLAGS = [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]
TASKS = ("push", "pull")


def episode(
    index: int, *, fps: float = 10.0, sizes: tuple[int, int] = (3, 2), side: int = 0, far: float = 0.0
) -> Episode:
    """The action is the state's way to a goal, which is the task."""
    rng = np.random.default_rng(index)
    state = rng.normal(far, 1.0, (9, sizes[0])).astype(np.float32)
    action = np.tanh((-1.0) ** index - state[:, : sizes[1]]).astype(np.float32)
    frames = rng.integers(0, 256, (9, side, side, 3), dtype=np.uint8)
    return Episode(
        index=index,
        fps=fps,
        task=TASKS[index % 2],
        state=state,
        action=action,
        images={"top": ArrayFrames(frames)} if side else {},
    )


def write(folder: Path, episodes: Sequence[Episode]) -> Path:
    first = episodes[0]
    features = features_of(first, pictures="image")
    with LeRobotWriter(folder, fps=first.fps, features=features, robot_type="arm") as writer:
        for one in episodes:
            writer.add(one)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "demos", [episode(k) for k in range(4)])


def recipe(**settings: Any) -> Recipe:
    return apply_settings(Recipe(), {**TINY, **settings})


@pytest.mark.parametrize("model", ["rdt", "mode"])
def test_train_makes_a_policy_that_acts(
    invoke: Callable[..., Result], data: Path, tmp_path: Path, model: str
) -> None:
    out = tmp_path / "policy"
    call = ("train", "--model", model, "--data", data, "--out", out, "--device", "cpu", *FLAGS)
    result = invoke(robopolicy, *call)
    assert result.exit_code == 0, result.output
    assert f"robopolicy evaluate --checkpoint {out}" in result.stderr + result.stdout
    assert [record["step"] for record in read_metrics(out / "training" / "metrics.jsonl")] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    policy = load(str(out))
    assert (policy.config.model, policy.config.fps, policy.config.robot_type) == (model, 10.0, "arm")
    assert policy.instructions.texts == list(TASKS)
    first = read_dataset(data)[0]
    action = policy.select_action({"observation.state": first.state[0], "task": "pull"})
    assert action.shape == (2,) and np.isfinite(action).all()
    np.testing.assert_allclose(
        policy.normalizer.state.high, read_dataset(data).statistics["observation.state"]["max"]
    )
    again = invoke(robopolicy, *call, "--set", "horizon=5")
    assert again.exit_code == 2 and "settings.horizon" in again.stderr
    weights = (out / "network" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert invoke(robopolicy, *call).exit_code == 0
    assert (out / "network" / "diffusion_pytorch_model.safetensors").read_bytes() == weights


def test_pad_learns_from_pictures(invoke: Callable[..., Result], tmp_path: Path) -> None:
    data = write(tmp_path / "demos", [episode(k, side=16) for k in range(4)])
    out, pad = tmp_path / "policy", ("--model", "pad", "--set", "image_size=16", "--set", "pad.known_state=3")
    call = ("train", *pad, "--data", data, "--out", out, "--device", "cpu", *FLAGS, "--set", "num_steps=2")
    lacking = invoke(robopolicy, *call)
    assert lacking.exit_code == 2 and "names no camera" in lacking.stderr
    wrong = invoke(robopolicy, *call, "--set", 'cameras=["wrist"]')
    assert wrong.exit_code == 2 and "wrist" in wrong.stderr and "top" in wrong.stderr
    result = invoke(robopolicy, *call, "--set", 'cameras=["top"]')
    assert result.exit_code == 0, result.output
    policy = load(str(out))
    seen = {"observation.state": np.zeros(3, np.float32), "task": "push"}
    picture = np.zeros((20, 24, 3), np.uint8)
    assert policy.predict_action_chunk({**seen, "observation.images.top": picture}).shape == (4, 2)


def test_an_interrupted_training_goes_on_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    def stop(step: int, steps: int, scalars: dict[str, Any]) -> None:
        if step == 5:
            raise RuntimeError("power cut")

    whole, torn = tmp_path / "whole", tmp_path / "torn"
    fit(data, recipe(model="rdt"), whole, device="cpu")
    with pytest.raises(RuntimeError, match="power cut"):
        fit(data, recipe(model="rdt"), torn, device="cpu", progress=stop)
    assert not (torn / "model_index.json").exists()
    fit(data, recipe(model="rdt"), torn, device="cpu")
    for name in (
        "network/diffusion_pytorch_model.safetensors",
        "normalizer.safetensors",
        "instructions.safetensors",
    ):
        assert (torn / name).read_bytes() == (whole / name).read_bytes()
    losses = [
        [record["loss"] for record in read_metrics(out / "training" / "metrics.jsonl")]
        for out in (whole, torn)
    ]
    assert losses[0] == losses[1]


def test_the_policy_learns(data: Path, tmp_path: Path) -> None:
    settings = {
        "training.steps": 100,
        "training.batch_size": 32,
        "training.log_every": 10,
        "training.save_every": 100,
    }
    fit(data, recipe(model="rdt", **settings), tmp_path / "policy", device="cpu")
    losses = [record["loss"] for record in read_metrics(tmp_path / "policy" / "training" / "metrics.jsonl")]
    assert losses[-1] < 0.5 * losses[0]


def test_batches_hold_the_windows_and_what_follows(tmp_path: Path) -> None:
    data = read_dataset(write(tmp_path / "demos", [episode(k, side=16) for k in range(4)]))
    settings = {
        "cameras": ["top"],
        "image_size": 16,
        "pad.frame_skip": 2,
        "pad.future_frames": 2,
        "pad.known_state": 3,
    }
    prepared = prepare(data, recipe(model="pad", **settings))
    batch = prepared.data.collate([1, 8, 9])  # the last frame of episode 0 and the first of episode 1
    scale = prepared.policy.normalizer
    episodes = [data[0], data[1]]
    np.testing.assert_allclose(batch.state[0], scale.state.normalize(episodes[0].state[1]), atol=1e-6)
    assert batch.actions is not None and batch.action_is_pad is not None
    np.testing.assert_allclose(batch.actions[2], scale.action.normalize(episodes[1].action[:4]), atol=1e-6)
    assert batch.action_is_pad.tolist() == [[False] * 4, [False, True, True, True], [False] * 4]
    np.testing.assert_allclose(batch.actions[1], np.tile(batch.actions[1, :1], (4, 1)))
    assert batch.images is not None and batch.future_images is not None
    frames = np.stack(list(episodes[0].images["top"])).transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_allclose(batch.images[0, 0], frames[1], atol=1e-6)
    np.testing.assert_allclose(batch.future_images[0], frames[[3, 5]], atol=1e-6)
    np.testing.assert_allclose(batch.future_images[1], frames[[8, 8]], atol=1e-6)
    assert batch.control_frequency.tolist() == [10.0] * 3
    known = prepared.policy.instructions.embeddings
    assert torch.equal(batch.language[2], known["pull"]) and torch.equal(batch.language[1], known["push"])


def test_given_embeddings_are_used_and_must_cover_the_tasks(
    invoke: Callable[..., Result], data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "words.safetensors"
    save_file({"push": torch.randn(3, 6), "pull": torch.randn(2, 6), "sing": torch.randn(1, 6)}, path)
    out = tmp_path / "policy"
    call = ("train", "--model", "rdt", "--data", data, "--language", path, "--device", "cpu", *FLAGS)
    assert invoke(robopolicy, *call, "--out", out).exit_code == 0
    found = load(str(out)).instructions
    assert found.kind == "precomputed" and found.texts == list(TASKS) and found.width == 6
    save_file({"push": torch.randn(3, 6)}, path)
    result = invoke(robopolicy, *call, "--out", tmp_path / "other")
    assert result.exit_code == 2 and "unknown instruction 'pull'" in result.stderr
    assert not (tmp_path / "other").exists()


def test_dry_run_shows_the_plan_and_writes_nothing(
    invoke: Callable[..., Result], data: Path, tmp_path: Path
) -> None:
    result = invoke(
        robopolicy, "train", "--data", data, "--out", tmp_path / "p", "--dry-run", "--limit", "3", *FLAGS
    )
    assert result.exit_code == 0, result.output
    assert "3 episodes, 27 frames at 10 per second" in result.stdout
    assert "model = mode" in result.stdout and "network.width = 32" in result.stdout
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "network.widht=3"], "network.width"),
        (["--set", "execute=9"], "execute is 9; expected 1 to 4"),
        (["--set", "horizon=0"], "horizon is 0"),
        (["--model", "rdt", "--set", "model=pad"], "contradict"),
        (["--checkpoint", "nowhere"], "nowhere"),
    ],
)
def test_wrong_settings_are_named(
    invoke: Callable[..., Result], data: Path, tmp_path: Path, flags: list[str], message: str
) -> None:
    result = invoke(robopolicy, "train", "--data", data, "--out", tmp_path / "policy", *flags)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "policy").exists()


def test_what_is_no_data_set_is_refused(invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = invoke(robopolicy, "train", "--data", tmp_path / "empty", "--out", tmp_path / "policy")
    assert result.exit_code == 2 and "empty" in result.stderr


# ---------------------------------------------------------------------------------------------------------
# Going on from a policy


@pytest.fixture
def policy(data: Path, tmp_path: Path) -> Path:
    return fit(data, recipe(model="rdt"), tmp_path / "policy", device="cpu")


def test_a_policy_is_trained_further(
    invoke: Callable[..., Result], data: Path, policy: Path, tmp_path: Path
) -> None:
    call = ("train", "--checkpoint", policy, "--data", data, "--device", "cpu")
    steps = [part for key in TINY if key.startswith("training.") for part in ("--set", f"{key}={TINY[key]}")]
    result = invoke(robopolicy, *call, "--out", tmp_path / "more", *steps)
    assert result.exit_code == 0, result.output
    before, after = load(str(policy)), load(str(tmp_path / "more"))
    assert before.network.config.width == after.network.config.width
    assert not torch.equal(next(before.network.parameters()), next(after.network.parameters()))
    run = json.loads((tmp_path / "more" / "run.json").read_text())
    assert run["provenance"]["checkpoint"]["sha256"]
    for flags, message in (
        (["--model", "mode"], "is of the model rdt"),
        (["--set", "network.width=64"], "network.width is the policy's own"),
    ):
        refused = invoke(robopolicy, *call, "--out", tmp_path / "other", *flags)
        assert refused.exit_code == 2 and message in refused.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 20.0}, "20 frames per second and the policy 10"),
        ({"sizes": (4, 2)}, r"observation.state has the shape \(4,\) in the data and \(3,\) in the policy"),
        ({"sizes": (3, 1)}, r"action has the shape \(1,\) in the data and \(2,\) in the policy"),
        ({"far": 50.0}, r"observation.state\[0\] runs from .* in the data and from .* in the policy's"),
    ],
)
def test_data_that_do_not_fit_are_refused_with_names_and_shapes(
    policy: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    other = read_dataset(write(tmp_path / "other", [episode(k, **change) for k in range(4)]))
    with pytest.raises(InputError, match=message):
        prepare(other, recipe(model="rdt"), start=RobotPolicy.from_pretrained(policy))


def test_tasks_that_a_policy_does_not_know_are_refused(policy: Path, tmp_path: Path) -> None:
    strange = [replace(episode(k), task="lift") for k in range(4)]
    with pytest.raises(InputError, match="unknown instruction 'lift'"):
        prepare(
            read_dataset(write(tmp_path / "other", strange)),
            recipe(model="rdt"),
            start=RobotPolicy.from_pretrained(policy),
        )


def test_the_beginning_of_a_data_set(data: Path) -> None:
    part = FirstEpisodes(read_dataset(data), 2)
    assert len(part) == 2 and part[1].task == "pull"
    rows = np.concatenate([part[0].state, part[1].state])
    np.testing.assert_allclose(part.statistics["observation.state"]["max"], rows.max(0))
    with pytest.raises(InputError, match="no episode can be used"):
        prepare(FirstEpisodes(read_dataset(data), 0), recipe())
