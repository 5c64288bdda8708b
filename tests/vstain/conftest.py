"""A small pipeline with random weights, and tiles for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from polydit.vstain.model import StainDiT
    from polydit.vstain.pipeline import StainPipeline


@pytest.fixture(scope="session")
def tiny_network() -> Callable[..., StainDiT]:
    """The network at its smallest, whose prediction is not zero: `tiny_network(mask_depth=0)`."""
    import torch

    from polydit.vstain.model import StainDiT

    def make(**settings: int) -> StainDiT:
        torch.manual_seed(0)
        sizes = {"width": 32, "heads": 2, "encoder_depth": 1, "image_depth": 1, "mask_depth": 1}
        network = StainDiT(**{**sizes, **settings})
        with torch.no_grad():
            for parameter in network.parameters():
                if not parameter.any():  # adaLN-Zero: the network would be the identity
                    torch.nn.init.normal_(parameter, std=0.1)
        return network.eval()

    return make


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_network: Callable[..., StainDiT]) -> StainPipeline:
    """Of two stains and two steps."""
    from polydit.vstain.pipeline import StainPipeline
    from polydit.vstain.schedules import stain_scheduler

    return StainPipeline(
        tiny_network(), stain_scheduler(), stains=("cd3", "ck"), mean=(0.7, 0.7, 0.75), scale=0.3, num_steps=2
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_pipeline: StainPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    tiny_pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def he_tile() -> Callable[..., np.ndarray]:
    """Procedural H&E: `he_tile(side, x=0, y=0)`."""
    from polydit.vstain.data.tissue import render

    return lambda side, x=0, y=0: render(1, x, y, side, side, "ck").he
