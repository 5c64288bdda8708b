"""The modulation of a run's steps is made before the first of them."""

from __future__ import annotations

import copy

import numpy as np

from polydit.molgen.data.structure import Structure
from polydit.molgen.pipeline import MolgenPipeline, SampleRequest

REQUESTS = [SampleRequest(id=f"{i}", kind="molecule", num_atoms=9 + i, seed=i) for i in range(2)]


def test_the_weights_of_the_modulation_may_go_in_the_middle_of_a_run(tiny_pipeline: MolgenPipeline) -> None:
    usual = tiny_pipeline(REQUESTS, num_steps=4)
    pipeline = copy.deepcopy(tiny_pipeline)
    denoiser = pipeline.denoiser

    def lose(step: int, steps: int) -> None:
        for part in (denoiser.modulator, denoiser.time_embed, denoiser.kind_embed, denoiser.spacegroup_embed):
            part.to("meta")

    for one, other in zip(pipeline(REQUESTS, num_steps=4, on_step=lose), usual, strict=True):
        assert isinstance(one, Structure) and isinstance(other, Structure)
        assert np.array_equal(one.numbers, other.numbers)
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-4)
