"""A tiny checkpoint with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from polydit.pointgen.pipeline import PointPipeline


@pytest.fixture(scope="session")
def tiny_pipeline() -> PointPipeline:
    """The network at its smallest, of two categories, with EDM's scheduler."""
    import torch
    from torch import nn

    from polydit.pointgen.model import PointDiT
    from polydit.pointgen.pipeline import PointPipeline
    from polydit.pointgen.schedules import edm_scheduler

    torch.manual_seed(0)
    network = PointDiT(voxels=8, patch_size=4, width=24, depth=2, heads=2, num_classes=2, occupancy=True)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():  # adaLN-Zero: the network would be the identity
                nn.init.normal_(parameter, std=0.1)
    return PointPipeline(
        network.eval(),
        edm_scheduler(),
        categories=("chair", "table"),
        mean=(0.0, 0.1, 0.0),
        scale=0.3,
        num_points=256,
        num_steps=3,
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_pipeline: PointPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_pipeline.save_pretrained(folder)
    return folder
