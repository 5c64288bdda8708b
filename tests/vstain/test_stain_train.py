"""Training: crops, the loss, resume, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result

from polydit.core.errors import InputError
from polydit.core.objectives import GaussianDiffusion
from polydit.vstain.cli import vstain
from polydit.vstain.colour import coarse_mask
from polydit.vstain.data.find import find_pairs
from polydit.vstain.data.make import make_dataset
from polydit.vstain.data.tissue import render
from polydit.vstain.fit import fit, mpp_of, shared
from polydit.vstain.model import StainDiT
from polydit.vstain.pairs import StainPair
from polydit.vstain.pictures import Normalisation
from polydit.vstain.pipeline import StainPipeline
from polydit.vstain.recipe import NetworkSettings, Recipe
from polydit.vstain.schedules import stain_scheduler
from polydit.vstain.train import Collate, StainTask

TINY = NetworkSettings(width=32, heads=2, encoder_depth=1, image_depth=1, mask_depth=1)
SMALL = ["network.width=32", "network.heads=2", "network.encoder_depth=1", "network.image_depth=1"]


def pair(seed: int, stain: str = "ck", *, mask: bool = True) -> StainPair:
    found = render(seed, 0, 0, 64, 64, stain)
    return StainPair(
        id=f"{stain}-{seed}",
        he=found.he,
        ihc=found.ihc,
        mask=found.mask if mask else None,
        stain=stain,
        mpp=0.5,
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training tiles."""
    folder = tmp_path_factory.mktemp("pairs") / "ds"
    make_dataset(folder, 10, percent=(80, 10, 10))
    return folder


def test_crops_of_the_three_pictures_show_one_place() -> None:
    tile = pair(1)
    same = StainPair(id="x", he=tile.ihc, ihc=tile.ihc, mask=tile.ihc[..., 0] > 127, stain="ck", mpp=0.5)
    crops = Collate(("ck",), 32)([same] * 6).crops(32, torch.Generator().manual_seed(0))
    torch.testing.assert_close(crops.he, crops.ihc)
    torch.testing.assert_close(crops.mask[:, 0], torch.where(crops.he[:, 0] > 0, 1.0, -1.0))
    assert len({crop.numpy().tobytes() for crop in crops.he}) > 1


def test_crops_depend_on_the_generator_alone() -> None:
    batch = Collate(("cd3", "ck"), 32)([pair(1), pair(2, "cd3")])
    first, again, other = (batch.crops(32, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    torch.testing.assert_close(first.he, again.he)
    assert not torch.equal(first.he, other.he)
    assert first.stain.tolist() == [1, 0]


def test_a_mask_that_is_not_known_is_derived_from_the_stain() -> None:
    tile = pair(1, mask=False)
    assert (Collate(("ck",), 32)([tile]).tiles[0][..., 6] > 0).tolist() == coarse_mask(tile.ihc).tolist()


def test_a_tile_smaller_than_the_crop_is_named() -> None:
    with pytest.raises(InputError, match="64 x 64") as raised:
        Collate(("ck",), 128)([pair(1)])
    assert "ck-1" in str(raised.value)


def test_the_loss_is_the_squared_error_in_v(tiny_network: Callable[..., StainDiT]) -> None:
    """For steps whose weight is not limited."""
    diffusion = GaussianDiffusion.of(stain_scheduler(), "sample")
    clean, found = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    noise, t = torch.randn(3, 4, 8, 8), torch.tensor([200, 600, 999])
    x = diffusion.noisy(clean, noise, t)
    v_error = (diffusion.velocity(found, x, t) - diffusion.velocity(clean, x, t)).square().flatten(1).mean(1)
    weight = diffusion.clean_weight(t, gamma=25.0)
    torch.testing.assert_close(weight * (found - clean).square().flatten(1).mean(1), v_error)
    assert float(diffusion.clean_weight(torch.tensor([0]), gamma=25.0)) == 25.0


@pytest.mark.parametrize("mask_depth", [0, 1])
def test_the_task_teaches_the_mask_if_there_is_one(
    tiny_network: Callable[..., StainDiT], mask_depth: int
) -> None:
    network = tiny_network(mask_depth=mask_depth)
    diffusion = GaussianDiffusion.of(stain_scheduler(), "sample")
    task = StainTask(network, diffusion, Normalisation(), 32, he_dropout=0.5, mask_weight=0.5, gamma=25.0)
    batch = Collate(("ck",), 32)([pair(1), pair(2)])
    losses = task.loss(network, batch, torch.Generator().manual_seed(0))
    assert ("mask" in losses) == bool(mask_depth)
    losses["loss"].backward()
    assert all(
        parameter.grad is not None for name, parameter in network.named_parameters() if name != "encoder.null"
    )


def small_recipe(steps: int) -> Recipe:
    from polydit.core.training.config import TrainConfig

    training = TrainConfig(
        steps=steps, batch_size=4, learning_rate=2e-3, muon_learning_rate=0.02, warmup=2, precision="no",
        ema=0.9, save_every=4, log_every=4,
    )  # fmt: skip
    return Recipe(crop=32, network=TINY, training=training)


def test_an_interrupted_training_goes_on_to_the_same_weights(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = find_pairs(dataset, split="train")
    whole = fit(files, small_recipe(12), tmp_path / "whole", device="cpu")

    def stop(step: int, steps: int, scalars: dict[str, object]) -> None:
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(files, small_recipe(12), tmp_path / "cut", device="cpu", progress=stop)
    again = fit(files, small_recipe(12), tmp_path / "cut", device="cpu")
    weights = [StainPipeline.from_pretrained(path).network.state_dict() for path in (whole, again)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, msg=name)


def test_it_learns(dataset: Path, tmp_path: Path) -> None:
    losses: list[float] = []
    fit(
        find_pairs(dataset, split="train"),
        small_recipe(60),
        tmp_path,
        device="cpu",
        progress=lambda step, steps, scalars: losses.append(scalars["loss"]),
    )
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_the_share_takes_the_first_pairs_of_each_stain(dataset: Path) -> None:
    files = find_pairs(dataset, split="train")
    chosen = shared(files, 0.5)
    assert [file.stain for file in chosen] == ["cd3"] * 2 + ["ck"] * 2
    assert [file.id for file in chosen] == [file.id for file in shared(files, 1.0) if file in chosen]


def test_microns_per_pixel_must_be_known_and_one(dataset: Path) -> None:
    from dataclasses import replace

    files = find_pairs(dataset, split="train")
    assert mpp_of(files, 0.0) == 0.5
    assert mpp_of([replace(file, mpp=None) for file in files], 0.25) == 0.25
    with pytest.raises(InputError, match="name no microns"):
        mpp_of([replace(file, mpp=None) for file in files], 0.0)
    with pytest.raises(InputError, match=r"0\.25 and 0\.5"):
        mpp_of([*files, replace(files[0], mpp=0.25)], 0.0)


def test_the_command_trains_and_what_it_saved_runs(
    invoke: Callable[..., Result], dataset: Path, tmp_path: Path
) -> None:
    settings = [*SMALL, "crop=32", "training.steps=2", "training.batch_size=2", "training.precision=no"]
    changes = [word for change in settings for word in ("--set", change)]
    out = tmp_path / "model"
    result = invoke(vstain, "train", "--data", dataset, "--out", out, *changes)
    assert result.exit_code == 0, result.output
    assert json.loads((out / "checkpoint" / "model_index.json").read_text())["stains"] == ["cd3", "ck"]
    plan = invoke(
        vstain, "train", "--data", dataset, "--network", "pix2pix", "--out", out, "--dry-run", "--json"
    )
    assert json.loads(plan.stdout)["pairs"] == {"cd3": 4, "ck": 4}
