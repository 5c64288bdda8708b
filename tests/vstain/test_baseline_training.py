"""Training pix2pix: it learns, and a run that was killed goes on to the same weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polydit.core.errors import InputError
from polydit.core.training.trainer import read_metrics
from polydit.vstain.baseline.fit import fit_gan
from polydit.vstain.baseline.pipeline import GanPipeline
from polydit.vstain.baseline.recipe import GanRecipe
from polydit.vstain.data.find import find_pairs
from polydit.vstain.data.make import make_dataset
from polydit.vstain.data.pair_file import PairFile

TRAINING = replace(GanRecipe().training, steps=6, batch_size=2, save_every=3, log_every=1, precision="no")
TINY = GanRecipe(crop=32, width=8, depth=3, critic_width=8, training=TRAINING)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[PairFile]:
    """Four tiles of the procedural slide, in both stains by turns."""
    folder = tmp_path_factory.mktemp("data") / "ds"
    make_dataset(folder, 4, percent=(100, 0, 0), coverage=1.0)
    return find_pairs(folder)


def test_a_run_that_was_killed_goes_on_to_the_same_weights(files: list[PairFile], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def tell(step: int, steps: int, scalars: dict[str, Any]) -> None:
        told.append((step, steps))

    whole = fit_gan(files, TINY, tmp_path / "a", device="cpu", progress=tell)
    again = fit_gan(files, TINY, tmp_path / "b", device="cpu")
    newest = sorted((tmp_path / "b" / "training" / "state").glob("*"))[-1]
    newest.unlink()  # as if it had been killed after the state before
    fit_gan(files, TINY, tmp_path / "b", device="cpu")
    assert told == [(step, 6) for step in range(1, 7)]
    weights = "network/diffusion_pytorch_model.safetensors"
    assert (whole / weights).read_bytes() == (again / weights).read_bytes()
    records = [read_metrics(tmp_path / run / "training" / "metrics.jsonl") for run in "ab"]
    assert [row["l1"] for row in records[0]] == [row["l1"] for row in records[1]]
    pipeline = GanPipeline.from_pretrained(whole)
    assert isinstance(pipeline, GanPipeline) and pipeline.stains == ("cd3", "ck") and pipeline.mpp == 0.5
    assert json.loads((tmp_path / "a" / "recipe.json").read_text())["l1_weight"] == 100.0


def test_it_learns_two_pairs(files: list[PairFile], tmp_path: Path) -> None:
    training = replace(TRAINING, steps=80, learning_rate=2e-3, save_every=80)
    recipe = replace(TINY, width=16, crop=48, depth=4, training=training)
    fit_gan(files[:2], recipe, tmp_path, device="cpu")
    errors = [row["l1"] for row in read_metrics(tmp_path / "training" / "metrics.jsonl")]
    assert sum(errors[-5:]) / 5 < errors[0] / 3


def test_every_error_is_logged(files: list[PairFile], tmp_path: Path) -> None:
    recipe = replace(TINY, training=replace(TRAINING, steps=1))
    fit_gan(files[:2], recipe, tmp_path, device="cpu")
    [row] = read_metrics(tmp_path / "training" / "metrics.jsonl")
    assert row["loss"] == pytest.approx(row["gan"] + 100.0 * row["l1"] + row["critic"], rel=1e-5)


def test_no_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pair"):
        fit_gan([], TINY, tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"crop": 100},
        {"crop": 16, "depth": 3},
        {"depth": 1},
        {"width": 0},
        {"critic_width": 0},
        {"beta1": 1.0},
        {"share": 0.0},
        {"training": replace(TRAINING, weight_decay=0.1)},
        {"training": replace(TRAINING, muon_learning_rate=0.1)},
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        GanRecipe(**settings)
