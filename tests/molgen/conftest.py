"""A tiny checkpoint with random weights, `molgen sample` on it, and files as they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import Result

if TYPE_CHECKING:
    from polydit.molgen.data.structure import Rejected, Structure
    from polydit.molgen.pipeline import MolgenPipeline

SIZES = {"molecule": {"5": 10, "9": 20, "12": 5}, "crystal": {"2": 3, "4": 8}}


@pytest.fixture(scope="session")
def tiny_pipeline() -> MolgenPipeline:
    """All parts at their smallest. Random, but atoms are H, C, N, O and cells near 2.5 n^(1/3) Å and 86°."""
    import torch
    from torch import nn

    from polydit.molgen.model import AtomAutoencoder, LatentDiT
    from polydit.molgen.pipeline import MolgenPipeline, flow_scheduler

    torch.manual_seed(0)
    autoencoder = AtomAutoencoder(width=32, depth=1, heads=2, latent_channels=4)
    denoiser = LatentDiT(latent_channels=4, width=32, depth=2, heads=2)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if not parameter.any():  # adaLN-Zero: the network would be the identity
                nn.init.normal_(parameter, std=0.2)
        decoder = autoencoder.decoder
        decoder.transformer.norm.bias[0] = 10.0
        decoder.position_head.weight.mul_(0.2)
        decoder.lattice_head.weight.mul_(0.02)
        decoder.lattice_head.weight[:, 0] = torch.tensor([0.25] * 3 + [0.15] * 3)
        decoder.type_head.bias[[1, 6, 7, 8]] += 20.0
    return MolgenPipeline(
        autoencoder, denoiser, flow_scheduler(), size_histograms=SIZES, num_steps=4, guidance_scale=2.0
    )


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_pipeline: MolgenPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tiny_pipeline`."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tiny_pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def sample(invoke: Callable[..., Result], tiny_checkpoint: Path) -> Callable[..., Result]:
    """``sample("--num-samples", 3, "--out", out)``: no report, the tiny checkpoint, unless told otherwise."""
    from polydit.molgen.cli import molgen

    def call(*arguments: object, **environment: str) -> Result:
        defaults = [] if "--checkpoint" in arguments else ["--checkpoint", tiny_checkpoint]
        return invoke(molgen, "sample", "--no-report", *defaults, *arguments, **environment)

    return call


class Entries(list["Structure | Rejected"]):
    """What a file holds, in its order."""

    @property
    def good(self) -> list[Structure]:
        """Its structures."""
        from polydit.molgen.data.structure import Structure

        return [entry for entry in self if isinstance(entry, Structure)]

    @property
    def bad(self) -> list[Rejected]:
        """What was rejected."""
        from polydit.molgen.data.structure import Rejected

        return [entry for entry in self if isinstance(entry, Rejected)]


@pytest.fixture(scope="session")
def read() -> Callable[..., Entries]:
    """``read(path, kind="crystal").good``: a file or folder, read to its end."""
    from polydit.molgen.data.readers import read_structures

    return lambda path, **options: Entries(read_structures(path, **options))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """``write("a.sdf", text)``: a file in `tmp_path`."""

    def call(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return call
