"""The pipeline of pix2pix: saved and loaded, called as ours is, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from polydit.core.errors import CheckpointError, InputError
from polydit.vstain.baseline.networks import UNetGenerator
from polydit.vstain.baseline.pipeline import GanPipeline
from polydit.vstain.data.tissue import render
from polydit.vstain.noise import noise_field
from polydit.vstain.tiles import StainRequest

SIZE = 64


@pytest.fixture(scope="module")
def pipeline() -> GanPipeline:
    """Untrained, of two stains."""
    torch.manual_seed(0)
    return GanPipeline(UNetGenerator(width=8, depth=3, num_stains=2).eval(), ("cd3", "ck"))


def request_at(x: int, stain: str = "ck", *, seed: int = 0, size: int = SIZE) -> StainRequest:
    """A tile of the procedural slide."""
    he = render(3, x, 0, size, size, stain).he
    return StainRequest(id=f"x{x}", he=he, stain=stain, noise=noise_field(seed, x, 0, size, size, 4))


def test_a_loaded_pipeline_stains_as_the_saved_one(pipeline: GanPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    loaded = GanPipeline.from_pretrained(tmp_path)
    assert isinstance(loaded, GanPipeline)
    assert loaded.stains == ("cd3", "ck") and loaded.mpp == 0.5 and loaded.multiple == 8
    assert (loaded.config.num_steps, loaded.config.guidance_scale) == (1, 1.0)
    [ours], [theirs] = pipeline([request_at(0)]), loaded([request_at(0)])
    assert ours.ihc.dtype == np.uint8 and ours.ihc.shape == (SIZE, SIZE, 3) and ours.mask is None
    np.testing.assert_array_equal(ours.ihc, theirs.ihc)


def test_a_tile_does_not_depend_on_its_batch(pipeline: GanPipeline) -> None:
    requests = [request_at(100 * k, "ck" if k % 2 else "cd3") for k in range(4)]
    together = pipeline(requests)
    alone = [pipeline([request])[0] for request in requests]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.ihc.astype(int) - other.ihc.astype(int)).max() <= 1  # a rounding


def test_noise_steps_and_guidance_change_nothing(pipeline: GanPipeline) -> None:
    told: list[tuple[int, int]] = []
    [plain] = pipeline([request_at(0)])
    [other] = pipeline(
        [request_at(0, seed=9)],
        num_steps=7,
        guidance_scale=3.0,
        mask=False,
        on_step=lambda *done: told.append(done),
    )
    np.testing.assert_array_equal(plain.ihc, other.ihc)
    assert told == [(1, 1)]
    assert pipeline([]) == []


@pytest.mark.parametrize(
    ("requests", "named"),
    [
        ([request_at(0, size=60)], "multiples of 8"),
        ([request_at(0), request_at(0, size=72)], "one size"),
    ],
)
def test_tiles_that_do_not_fit_are_refused(
    pipeline: GanPipeline, requests: list[StainRequest], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        pipeline(requests)


def test_an_unknown_stain_is_refused(pipeline: GanPipeline) -> None:
    known = request_at(0)
    unknown = StainRequest(id="a", he=known.he, stain="her2", noise=known.noise)
    with pytest.raises(InputError, match=r"no her2.*cd3, ck"):
        pipeline([unknown])


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StainPipeline"}')
    with pytest.raises(CheckpointError, match="another kind"):
        GanPipeline.from_pretrained(tmp_path)
