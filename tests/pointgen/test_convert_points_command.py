"""`pointgen convert`: from a file as the published training writes it to a checkpoint that `info` describes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result

from polydit.core.checkpoints.folder import read_card
from polydit.pointgen import PointPipeline
from polydit.pointgen.checkpoint import Checkpoint
from polydit.pointgen.cli import pointgen
from polydit.pointgen.convert import point_dit_to_published
from polydit.pointgen.model import PointDiT

Convert = Callable[..., Result]
SCALES = ("--mean", "0,0.5,0", "--scale", 0.17, "--num-heads", 2)


@pytest.fixture
def convert(invoke: Convert, tmp_path: Path) -> Convert:
    model = PointDiT(voxels=8, patch_size=2, width=24, depth=1, heads=2, num_classes=2)
    state = {f"model.module.{key}": value for key, value in point_dit_to_published(model).items()}
    torch.save({"model_state": state}, tmp_path / "two.pth")
    return lambda *words: invoke(pointgen, "convert", *words)


def test_a_published_file_becomes_a_checkpoint(convert: Convert, tmp_path: Path) -> None:
    done = convert("two.pth", "--category", "chair,table", *SCALES, "--out", "ours", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["weights"], summary["schedule"]) == ("model_state", "linear")
    pipeline = PointPipeline.from_pretrained(tmp_path / "ours")
    assert pipeline.network.num_parameters() == summary["parameters"]
    assert Checkpoint.find(str(tmp_path / "ours")).categories == ("chair", "table")
    card = read_card(tmp_path / "ours")
    assert card.fields["source_sha256"] == summary["sha256"]
    assert "Categories: chair, table." in card.text and "mean 0, 0.5, 0, scale 0.17 were given" in card.text


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["two.pth", "--category", "chair"], "--mean and --scale"),
        (["two.pth", "--category", "chair", "--mean", "0,0", "--scale", 1], "three numbers"),
        (["two.pth", "--category", "a,b,c", *SCALES], "knows 2 categories"),
        (["absent.pth", "--category", "chair", *SCALES], "absent.pth"),
    ],
)
def test_what_cannot_be_converted_is_named(
    convert: Convert, tmp_path: Path, words: list[object], named: str
) -> None:
    done = convert(*words, "--out", "ours")
    assert done.exit_code == 2 and named in done.stderr
    assert not (tmp_path / "ours").exists()
