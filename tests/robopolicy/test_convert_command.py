"""`robopolicy convert`: published files of the three systems to folders of ours."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file

from polydit.core.nn.embeddings import sincos_grid
from polydit.core.testing.golden import GoldenCase
from polydit.robopolicy.cli import robopolicy
from polydit.robopolicy.data.features import features_of
from polydit.robopolicy.data.writer import LeRobotWriter
from polydit.robopolicy.episode import Episode

Invoke = Callable[..., Result]
SIZE = 12  # of states and actions of the recorded RDT


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded systems' weights, in files as their programs write them."""
    cases = Path(__file__).parents[1] / "golden" / "cases"
    folder = tmp_path_factory.mktemp("published")
    rdt = GoldenCase.read(cases / "rdt-runner.json")
    tables = {f"model.{name}_pos_embed": torch.zeros(1, n, 32) for name, n in
              (("x", 7), ("lang_cond", 8), ("img_cond", 12))}  # fmt: skip
    (folder / "rdt").mkdir()
    torch.save(rdt.state_dict(tables), folder / "rdt" / "pytorch_model.bin")
    (folder / "rdt" / "config.json").write_text(json.dumps(rdt.config))
    mode = GoldenCase.read(cases / "mode-denoiser.json")
    (folder / "mode").mkdir()
    state = {f"model.{name}": value for name, value in mode.state_dict().items()}
    save_file(state, folder / "mode" / "model_cleaned.safetensors")
    (folder / "mode" / "config.json").write_text(json.dumps({"model_config": mode.config}))
    pad = GoldenCase.read(cases / "pad-dit.json")
    side, width = pad.config["input_size"] // pad.config["patch_size"], pad.config["hidden_size"]
    tables = {
        "pos_embed": sincos_grid((side, side), width)[None],
        "a_pos_embed": sincos_grid((1,), width)[None],
    }
    arguments = argparse.Namespace(**pad.config["args"])
    torch.save({"model": pad.state_dict(tables), "args": arguments}, folder / "pad.pt")
    (folder / "heads").write_text(str(pad.config["num_heads"]))
    return folder


def line(published: Path, model: str) -> list[object]:
    if model == "pad":
        return [
            "convert",
            published / "pad.pt",
            "--from",
            "pad",
            "--num-heads",
            (published / "heads").read_text(),
        ]
    return ["convert", published / model, "--from", model]


@pytest.mark.parametrize("model", ["rdt", "mode", "pad"])
def test_a_published_network_is_converted_and_described(
    model: str, published: Path, invoke: Invoke, tmp_path: Path
) -> None:
    out = tmp_path / "ours"
    done = invoke(robopolicy, *line(published, model), "--out", out, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    weights = load_file(out / "network" / "diffusion_pytorch_model.safetensors")
    assert sum(value.numel() for value in weights.values()) == summary["parameters"]
    described = invoke(robopolicy, "info", out, "--json")
    assert described.exit_code == 0, described.output
    record = json.loads(described.stdout)
    assert record["model"] == model and record["parameters"] == {"network": summary["parameters"]}
    assert record["source_sha256"] == summary["sha256"] != record["sha256"]
    assert "Converted from" in record["card"]
    again = invoke(robopolicy, *line(published, model), "--out", out)
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    assert invoke(robopolicy, *line(published, model), "--out", out, "--overwrite").exit_code == 0


@pytest.fixture(scope="session")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of two episodes, and the embedding of its instruction."""
    folder = tmp_path_factory.mktemp("robot")
    rng = np.random.default_rng(0)
    episodes = [
        Episode(
            index=index,
            fps=25.0,
            task="lift the cup",
            state=rng.normal(size=(9, SIZE)).astype(np.float32),
            action=rng.normal(size=(9, SIZE)).astype(np.float32),
        )
        for index in range(2)
    ]
    out = folder / "data"
    with LeRobotWriter(out, fps=25.0, features=features_of(episodes[0]), robot_type="two arms") as writer:
        for episode in episodes:
            writer.add(episode)
    save_file({"lift the cup": torch.ones(3, 16)}, folder / "language.safetensors")
    return folder


def test_with_a_robot_s_data_it_is_a_policy(
    published: Path, robot: Path, invoke: Invoke, tmp_path: Path
) -> None:
    from polydit.robopolicy.policy import RobotPolicy

    out = tmp_path / "policy"
    about = ("--data", robot / "data", "--language", robot / "language.safetensors")
    done = invoke(robopolicy, *line(published, "rdt"), *about, "--out", out)
    assert done.exit_code == 0, done.output
    policy = RobotPolicy.from_pretrained(out)
    assert (policy.config.fps, policy.config.robot_type) == (25.0, "two arms")
    assert policy.config.execute == policy.model.horizon == 4
    values = np.linspace(-1.0, 1.0, SIZE)[None]
    np.testing.assert_allclose(policy.normalizer.action.normalize(values), values, rtol=1e-6)
    record = json.loads(invoke(robopolicy, "info", out, "--json").stdout)
    assert record["instructions"] == ["lift the cup"]


def test_what_does_not_fit_together_is_named(
    published: Path, robot: Path, invoke: Invoke, tmp_path: Path
) -> None:
    def refused(*arguments: object) -> str:
        done = invoke(robopolicy, *arguments, "--out", tmp_path / "out")
        assert done.exit_code == 2, done.output
        assert not (tmp_path / "out").exists()
        return done.stderr

    rdt, data = line(published, "rdt"), ("--data", robot / "data")
    about = (*data, "--language", robot / "language.safetensors")
    assert "--data and --language" in refused(*rdt, *data)
    assert "no camera wrist" in refused(*rdt, *about, "--camera", "wrist")
    assert "--num-heads" in refused(*rdt, "--num-heads", 4)
    assert "actions of 7 numbers" in refused(*line(published, "mode"), *about)
    assert "Missing option '--from'" in refused("convert", published / "rdt")


class Evil:
    """Writes a file when it is unpickled by plain pickle."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.mark)!r}, 'w')",)


@pytest.mark.parametrize(
    ("model", "name"), [("rdt", "pytorch_model.bin"), ("mode", "model_cleaned.pt"), ("pad", "pad.pt")]
)
def test_code_in_a_file_is_named_and_not_run(
    model: str, name: str, published: Path, invoke: Invoke, tmp_path: Path
) -> None:
    mark, folder = tmp_path / "mark", tmp_path / "evil"
    folder.mkdir()
    torch.save({"model": {}, "state_dict": {}, "args": Evil(mark)}, folder / name)
    if model != "pad":
        (folder / "config.json").write_bytes((published / model / "config.json").read_bytes())
    done = invoke(robopolicy, "convert", folder / name, "--from", model, "--out", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert "builtins.exec" in done.stderr and name in done.stderr and "Traceback" not in done.stderr
    assert not mark.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(("model", "other"), [("rdt", "pad"), ("mode", "rdt"), ("pad", "mode")])
def test_a_file_of_another_system_is_refused(
    model: str, other: str, published: Path, invoke: Invoke, tmp_path: Path
) -> None:
    source = published / "pad.pt" if other == "pad" else published / other
    if model == "pad":
        source = tmp_path / "other.pt"
        torch.save({"state_dict": {"a": torch.ones(1)}}, source)
    done = invoke(robopolicy, "convert", source, "--from", model, "--out", tmp_path / "out")
    assert done.exit_code == 2 and "Traceback" not in done.stderr, done.output
    assert not (tmp_path / "out").exists()


def test_a_network_alone_does_not_act(published: Path, invoke: Invoke, tmp_path: Path) -> None:
    out = tmp_path / "network"
    assert invoke(robopolicy, *line(published, "rdt"), "--out", out).exit_code == 0
    done = invoke(robopolicy, "serve", "--checkpoint", out, "--port", 0)
    assert done.exit_code == 2 and "expected RobotPolicy" in done.stderr
