"""From H&E to a virtual stain and its mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from polydit.core.errors import CheckpointError, InputError
from polydit.core.objectives import GaussianDiffusion
from polydit.vstain.checkpoint import Checkpoint
from polydit.vstain.model import StainDiT
from polydit.vstain.noise import noise_field
from polydit.vstain.pictures import Normalisation, from_image, to_image
from polydit.vstain.pipeline import StainPipeline
from polydit.vstain.schedules import sampler, stain_scheduler
from polydit.vstain.tiles import StainRequest

Tile = Callable[..., np.ndarray]


def requests(he_tile: Tile, count: int, side: int = 32) -> list[StainRequest]:
    stains = ("ck", "cd3")
    return [
        StainRequest.of(f"tile-{i}", he_tile(side, x=40 * i), stain=stains[i % 2], seed=3)
        for i in range(count)
    ]


def test_a_tile_is_the_same_in_any_batch_and_order(tiny_pipeline: StainPipeline, he_tile: Tile) -> None:
    asked = requests(he_tile, 8)
    together = tiny_pipeline(asked)
    for request, found in zip(reversed(asked), reversed(together), strict=True):
        (alone,) = tiny_pipeline([request])
        assert np.abs(alone.ihc.astype(int) - found.ihc).max() <= 1  # rounding to bytes
        assert found.mask is not None and alone.mask is not None
        assert (alone.mask != found.mask).mean() < 0.01


def test_same_call_same_bytes_and_another_seed_another_stain(
    tiny_pipeline: StainPipeline, he_tile: Tile
) -> None:
    (request,) = requests(he_tile, 1)
    first, again = tiny_pipeline([request]), tiny_pipeline([request])
    np.testing.assert_array_equal(first[0].ihc, again[0].ihc)
    other = replace(request, noise=noise_field(99, 0, 0, 32, 32, 4))
    assert (tiny_pipeline([other])[0].ihc != first[0].ihc).any()


def test_without_the_mask_the_stain_is_the_same(tiny_pipeline: StainPipeline, he_tile: Tile) -> None:
    asked = requests(he_tile, 2)
    alone = tiny_pipeline(asked, mask=False)
    assert all(stained.mask is None for stained in alone)
    for one, both in zip(alone, tiny_pipeline(asked), strict=True):
        assert np.abs(one.ihc.astype(int) - both.ihc).max() <= 1


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_pushes_away_from_what_is_made_without_the_tissue(
    tiny_pipeline: StainPipeline, he_tile: Tile, scale: float
) -> None:
    """In one step the guided prediction is linear in the scale: -v = x̂₀ at zero terminal SNR."""
    asked = requests(he_tile, 1)
    without, plain, guided = (
        tiny_pipeline(asked, num_steps=1, guidance_scale=s)[0].ihc.astype(float) for s in (0.0, 1.0, scale)
    )
    expected = np.clip(without + scale * (plain - without), 0, 255)
    inside = (expected > 5) & (expected < 250) & (plain > 0) & (plain < 255) & (without > 0) & (without < 255)
    assert inside.mean() > 0.1
    assert np.abs(guided - expected)[inside].max() <= 3


def test_sampling_starts_where_nothing_is_left_of_the_picture() -> None:
    scheduler, times = sampler(stain_scheduler(), 10)
    assert times.tolist() == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    assert float(scheduler.alphas_cumprod[scheduler.timesteps[0]]) == pytest.approx(0.0, abs=1e-7)
    assert scheduler.config.prediction_type == "v_prediction"


def test_a_network_that_knows_the_picture_reaches_it_in_any_number_of_steps() -> None:
    """White stays white: no step shifts the brightness of what is predicted."""
    clean = torch.full((1, 4, 8, 8), 0.9)
    for steps in (1, 2, 7, 50):
        scheduler, _ = sampler(stain_scheduler(), steps)
        diffusion, x = GaussianDiffusion.of(scheduler), torch.randn(1, 4, 8, 8)
        for timestep in scheduler.timesteps:
            v = diffusion.velocity(clean, x, timestep.expand(1))
            x = scheduler.step(v, timestep, x, return_dict=False)[0]
        torch.testing.assert_close(x, clean, atol=1e-4, rtol=0)


def test_pictures_and_their_units() -> None:
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(-1, -1, -1, 3)
    picture = from_image(image)
    assert (float(picture.min()), float(picture.max())) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_image(picture), image)
    units = Normalisation.of([image[0].numpy()])
    normal = units.normalise(picture)
    assert abs(float(normal.mean())) < 1e-3
    assert float(normal.std()) == pytest.approx(1.0, abs=0.01)
    torch.testing.assert_close(units.denormalise(normal), picture)


def test_save_and_load(tiny_pipeline: StainPipeline, tiny_checkpoint: Path, he_tile: Tile) -> None:
    again = StainPipeline.from_pretrained(tiny_checkpoint)
    asked = requests(he_tile, 2)
    for one, other in zip(tiny_pipeline(asked), again(asked), strict=True):
        np.testing.assert_array_equal(one.ihc, other.ihc)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stain": "her2"}, "makes no her2"),
        (
            {"he": np.zeros((32, 36, 3), np.uint8), "noise": np.zeros((4, 32, 36), np.float32)},
            "multiples of 8",
        ),
    ],
)
def test_bad_requests(
    tiny_pipeline: StainPipeline, he_tile: Tile, change: dict[str, object], message: str
) -> None:
    (request,) = requests(he_tile, 1)
    with pytest.raises(InputError, match=message):
        tiny_pipeline([replace(request, **change)])


def test_more_bad_calls(tiny_pipeline: StainPipeline, he_tile: Tile) -> None:
    small, large = requests(he_tile, 1)[0], requests(he_tile, 1, side=40)[0]
    with pytest.raises(InputError, match="one size"):
        tiny_pipeline([small, large])
    with pytest.raises(InputError, match="out of range"):
        tiny_pipeline([small], num_steps=0)
    assert tiny_pipeline([]) == []


def test_the_checkpoint_as_the_command_line_sees_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    found = Checkpoint.find(str(tiny_checkpoint))
    assert (found.stains, found.mpp, found.num_steps, found.has_mask) == (("cd3", "ck"), 0.5, 2, True)
    assert not found.is_baseline
    assert found.chosen("CK") == "ck"
    with pytest.raises(InputError, match="makes several stains"):
        found.chosen(None)
    with pytest.raises(InputError, match="makes no 'her2'"):
        found.chosen("her2")
    with pytest.raises(CheckpointError):
        Checkpoint.find(str(tmp_path))


def test_a_network_without_masks_makes_none(tiny_network: Callable[..., StainDiT], he_tile: Tile) -> None:
    pipeline = StainPipeline(tiny_network(mask_depth=0), stain_scheduler(), stains=("cd3", "ck"), num_steps=1)
    assert not pipeline.has_mask
    assert pipeline(requests(he_tile, 1))[0].mask is None
