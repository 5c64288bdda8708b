"""Distances in the features of a network that the user names."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from polydit.core.errors import InputError
from polydit.vstain.cli import vstain
from polydit.vstain.data.tissue import render
from polydit.vstain.evaluate.features import FeatureNetwork, frechet_distance, kernel_distance


class Means(torch.nn.Module):
    """Mean and deviation of each colour."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images.mean((2, 3)), images.std((2, 3))], dim=1)


class Perceptual(torch.nn.Module):
    """Takes the arguments of the file that LPIPS comes in."""

    def forward(
        self, images: torch.Tensor, resize_images: bool = True, return_lpips: bool = False
    ) -> torch.Tensor:
        assert return_lpips and not resize_images
        return images.mean((2, 3)) / 255.0


@pytest.fixture
def network_file(tmp_path: Path) -> Callable[[torch.nn.Module], Path]:
    def save(module: torch.nn.Module) -> Path:
        path = tmp_path / f"{type(module).__name__}.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.jit.script(module).save(str(path))
        return path

    return save


def test_frechet_distance_of_normal_features() -> None:
    rng = np.random.default_rng(0)
    real, virtual = rng.normal(size=(20000, 3)), 2.0 * rng.normal(size=(20000, 3)) + [1.0, 0.0, 0.0]
    assert frechet_distance(virtual, real) == pytest.approx(1.0 + 3 * (2.0 - 1.0) ** 2, rel=0.03)
    assert frechet_distance(real, real) == pytest.approx(0.0, abs=1e-6)


def test_kernel_distance_is_unbiased() -> None:
    rng = np.random.default_rng(1)
    equal = [kernel_distance(rng.normal(size=(30, 4)), rng.normal(size=(30, 4))) for _ in range(200)]
    assert abs(np.mean(equal)) < 3 * np.std(equal) / 200**0.5
    assert kernel_distance(rng.normal(size=(30, 4)) + 1.0, rng.normal(size=(30, 4))) > 0.5


def test_a_file_is_asked_for_what_it_can_give(network_file: Callable[[torch.nn.Module], Path]) -> None:
    tiles = [render(1, 64 * i, 0, 64, 64, "ck") for i in range(12)]
    means = FeatureNetwork(network_file(Means()))
    pairs = [means.pair(tile.ihc, tile.he) for tile in tiles]
    assert [measure.name for measure in means.measures(pairs)] == ["Fréchet distance", "kernel distance"]
    assert means.measures(pairs[:9])[0].value is None
    assert "Means.pt sha256:" in means.measures(pairs)[0].method
    perceptual = FeatureNetwork(network_file(Perceptual()))
    (measure,) = perceptual.measures([perceptual.pair(tile.ihc, tile.he) for tile in tiles])
    expected = np.mean([((t.ihc.mean((0, 1)) - t.he.mean((0, 1))) / 255.0) @ (
        (t.ihc.mean((0, 1)) - t.he.mean((0, 1))) / 255.0) for t in tiles])  # fmt: skip
    assert (measure.name, measure.value) == ("perceptual distance", pytest.approx(expected, rel=1e-4))


def test_what_is_no_torchscript_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"x\.pt: is no TorchScript"):
        FeatureNetwork(tmp_path / "x.pt")


def test_the_command_adds_them_under_their_own_names(
    invoke: Callable[..., Result], network_file: Callable[[torch.nn.Module], Path], tmp_path: Path
) -> None:
    for folder, stain in (("made", "he"), ("real", "ihc")):
        (tmp_path / folder).mkdir()
        for i in range(10):
            tile = render(1, 64 * i, 0, 64, 64, "ck")
            Image.fromarray(getattr(tile, stain)).save(tmp_path / folder / f"{i}.png")
    line = ("evaluate", "made", "--reference", "real", "--json")
    plain = json.loads(invoke(vstain, *line).stdout)
    assert "Fréchet distance" not in plain["figures"]
    found = json.loads(invoke(vstain, *line, "--features", network_file(Means())).stdout)
    assert found["figures"]["Fréchet distance"]["value"] > 0.0
    assert not {"FID", "KID", "LPIPS"} & found["figures"].keys()
