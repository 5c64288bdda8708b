"""Training: the objectives, the command and its plan, going on after an interruption, starting from other weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from polydit.core.errors import InputError
from polydit.core.jobs.seeds import item_generator
from polydit.core.models.convert import dit_to_published
from polydit.core.models.dit import DiT
from polydit.core.training.trainer import read_metrics
from polydit.pointgen.cli import pointgen
from polydit.pointgen.cloud import Cloud, Normalisation
from polydit.pointgen.data.shapes import shape_points
from polydit.pointgen.fit import build_network
from polydit.pointgen.model import PointDiT
from polydit.pointgen.pipeline import PointPipeline
from polydit.pointgen.recipe import NetworkSettings, Recipe
from polydit.pointgen.train import Collate, PointTask, objective_of

TINY = [
    "--set", "num_points=64",
    "--set", "network.voxels=8", "--set", "network.patch_size=4", "--set", "network.width=24",
    "--set", "network.depth=2", "--set", "network.heads=2", "--set", "network.point_channels=4",
    "--set", "training.steps=6", "--set", "training.batch_size=4", "--set", "training.log_every=1",
    "--set", "training.precision=no", "--set", "training.save_every=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories of clouds as files."""
    root = tmp_path_factory.mktemp("clouds")
    for category in ("chair", "table"):
        folder = root / category / "train"
        folder.mkdir(parents=True)
        for index in range(6):
            np.save(folder / f"{index}.npy", shape_points(category, 0, index, 300))
    return root


@pytest.fixture
def train() -> Callable[..., Result]:
    return lambda *arguments: CliRunner().invoke(pointgen, ["train", *map(str, arguments)])


def test_a_trained_checkpoint_samples_and_a_resumed_run_agrees(
    data: Path, tmp_path: Path, train: Callable[..., Result]
) -> None:
    assert train("--data", data, "--out", tmp_path / "a", *TINY).exit_code == 0
    pipeline = PointPipeline.from_pretrained(tmp_path / "a" / "checkpoint")
    assert pipeline.config.categories == ["chair", "table"]
    whole = read_metrics(tmp_path / "a" / "training" / "metrics.jsonl")
    assert train("--data", data, "--out", tmp_path / "b", *TINY).exit_code == 0
    for state in sorted((tmp_path / "b" / "training" / "state").glob("*"))[1:]:
        state.unlink()  # as if it had been killed after the older state
    assert train("--data", data, "--out", tmp_path / "b", *TINY).exit_code == 0
    again = read_metrics(tmp_path / "b" / "training" / "metrics.jsonl")
    assert [row["loss"] for row in whole] == [row["loss"] for row in again][-len(whole) :]


def test_the_plan_says_what_would_be_trained(data: Path, train: Callable[..., Result]) -> None:
    done = train("--data", data, "--out", "nowhere", "--dry-run", "--json", *TINY)
    plan = json.loads(done.stdout.splitlines()[-1])
    assert plan["clouds"] == {"chair": 6, "table": 6} and plan["points"] == 200  # two thirds of 300
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--category", "chair,boat"], "no boat"),
        (["--set", "network.window=3"], "do not divide"),
        (["--set", "network.patch_size=3"], "do not divide"),
        (["--set", "objective=magic"], "magic"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_starts(
    data: Path, tmp_path: Path, train: Callable[..., Result], arguments: list[str], named: str
) -> None:
    done = train("--data", data, "--out", tmp_path / "out", *TINY, *arguments)
    assert done.exit_code == 2 and named in done.output
    assert not (tmp_path / "out" / "checkpoint").exists()


@pytest.mark.parametrize("objective", ["edm", "flow", "noise"])
def test_every_objective_learns_one_cloud(objective: str) -> None:
    recipe = Recipe(
        objective=objective,
        noise_mean=-1.2,  # where a few steps show
        noise_std=1.2,
        network=NetworkSettings(voxels=8, patch_size=4, width=48, depth=2, heads=2, point_channels=8),
        label_dropout=0.0,
    )
    torch.manual_seed(0)
    network = build_network(recipe.network, 1)
    clouds = [Cloud(id="one", points=shape_points("table", 0, 0, 256), category="table")] * 8
    batch = Collate(("table",), Normalisation.of(np.stack([c.points for c in clouds])))(clouds)
    task = PointTask(network, objective_of(recipe), num_points=128, label_dropout=0.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        loss = task.loss(network, batch, item_generator(0, str(step)))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5])


def test_training_starts_from_the_blocks_of_images(
    data: Path, tmp_path: Path, train: Callable[..., Result]
) -> None:
    torch.manual_seed(3)
    images = DiT(sample_size=8, patch_size=2, in_channels=4, width=384, depth=1, heads=6, num_classes=3)
    torch.save(dit_to_published(images), tmp_path / "dit.pt")
    sizes = ["--set", "network.width=384", "--set", "network.depth=1", "--set", "network.heads=6"]
    options = [*TINY, *sizes, "--set", "network.modulation=adaln", "--set", "training.steps=1"]
    frozen = ["--set", "training.learning_rate=1e-12", "--set", "training.ema=0"]
    start = ["--start", tmp_path / "dit.pt"]
    done = train(
        "--data",
        data,
        "--out",
        tmp_path / "out",
        *options,
        *frozen,
        "--set",
        "training.muon_learning_rate=0",
        *start,
    )
    assert done.exit_code == 0, done.output
    network = PointPipeline.from_pretrained(tmp_path / "out" / "checkpoint").network
    assert isinstance(network, PointDiT)
    torch.testing.assert_close(
        network.dit.blocks[0].attn.qkv.weight, images.blocks[0].attn.qkv.weight, atol=1e-6, rtol=0
    )


def test_training_starts_from_a_checkpoint_and_keeps_its_categories_and_units(
    data: Path, tmp_path: Path, train: Callable[..., Result]
) -> None:
    still = ["--set", "training.learning_rate=1e-12", "--set", "training.muon_learning_rate=0"]
    assert train("--data", data, "--out", tmp_path / "a", *TINY).exit_code == 0
    first = tmp_path / "a" / "checkpoint"
    options = ["--category", "table", "--start", first, *TINY, *still, "--set", "training.ema=0"]
    done = train("--data", data, "--out", tmp_path / "b", *options)
    assert done.exit_code == 0, done.output
    old, new = map(PointPipeline.from_pretrained, (first, tmp_path / "b" / "checkpoint"))
    assert new.config.categories == ["chair", "table"]  # of which the new data have one
    assert new.normalisation == old.normalisation
    for name, value in old.network.state_dict().items():
        torch.testing.assert_close(new.network.state_dict()[name], value, atol=1e-6, rtol=0)


def test_a_checkpoint_that_cannot_be_the_start_is_refused(
    data: Path, tmp_path: Path, tiny_checkpoint: Path, train: Callable[..., Result]
) -> None:
    start = ["--data", data, "--start", tiny_checkpoint, *TINY]
    done = train(*start, "--out", tmp_path / "a")
    assert done.exit_code == 2 and "point_channels 0, here 4" in done.output
    cars = tmp_path / "cars" / "car" / "train"
    cars.mkdir(parents=True)
    np.save(cars / "0.npy", shape_points("car", 0, 0, 300))
    done = train("--data", tmp_path / "cars", "--start", tiny_checkpoint, *TINY, "--out", tmp_path / "b")
    assert done.exit_code == 2 and "knows no car" in done.output


def test_windows_of_a_recipe() -> None:
    settings = NetworkSettings(voxels=32, window=4, window_blocks=(0, 3), depth=4, width=24, heads=2)
    assert [pattern is not None for pattern in build_network(settings, 1).dit.patterns] == [
        True,
        False,
        False,
        True,
    ]
    with pytest.raises(InputError, match="do not divide"):
        Recipe(network=NetworkSettings(voxels=24, window=4))
