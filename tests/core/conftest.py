"""Tiny networks of random weights, ours and diffusers' as guiders drive them; a checkpoint of clouds; a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import DiTTransformer2DModel, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.guiders import BaseGuidance
from torch import Tensor, nn

from polydit.core.models import DiT
from polydit.core.sampling import denoise
from polydit.core.sampling.guidance import Guided
from polydit.core.testing.browser import Browser, find_chromium, start_browser

ITEMS, NULL = 2, 10
LABELS = {"labels": (torch.tensor([3, 5]), torch.full((ITEMS,), NULL))}
TIME = torch.tensor(500.0)


class Net:
    """A tiny network of random weights, how it is called, and how many items each call had."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...], call: Callable[..., Tensor]) -> None:
        torch.manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.12)
        self.network, self.shape, self._call = network.eval(), shape, call
        self.items: list[int] = []

    def __call__(self, x: Tensor, timestep: Tensor, **conditions: Tensor) -> Tensor:
        self.items.append(len(x))
        return self._call(self.network, x, timestep.expand(len(x)), **conditions)

    def noise(self, items: int = ITEMS) -> Tensor:
        return torch.randn(items, *self.shape, generator=torch.Generator().manual_seed(1))

    def guided(self, guider: BaseGuidance, num_steps: int = 1, channels: int | None = None) -> Guided:
        return Guided(self.network, self, guider, LABELS, num_steps=num_steps, channels=channels)

    @torch.no_grad()
    def at(self, guider: BaseGuidance, step: int = 1, num_steps: int = 3) -> Tensor:
        """One prediction, in the middle of a run."""
        guided = self.guided(guider, num_steps)
        for _ in range(step):
            guided(self.noise(), TIME, None)
        self.items.clear()
        return guided(self.noise(), TIME, None)

    @torch.no_grad()
    def alone(self, labels: Tensor) -> Tensor:
        return self(self.noise(), TIME, labels=labels)

    def sample(self, guider: BaseGuidance, num_steps: int = 5, seed: int = 1) -> Tensor:
        scheduler = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(num_steps)
        noise = torch.randn(ITEMS, *self.shape, generator=torch.Generator().manual_seed(seed))
        return denoise(self.guided(guider, num_steps), noise, scheduler)


def our_dit() -> Net:
    network = DiT(sample_size=8, width=32, depth=4, heads=4, num_classes=NULL, learn_sigma=False)
    return Net(network, (4, 8, 8), lambda net, x, t, labels: net(x, t / 1000, labels).sample)


def diffusers_dit() -> Net:
    network = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        sample_size=8,
        num_embeds_ada_norm=NULL,
    )
    return Net(network, (4, 8, 8), lambda net, x, t, labels: net(x, t.long(), labels).sample)


def flux() -> Net:
    network = FluxTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    texts = torch.randn(NULL + 1, 6, 32, generator=torch.Generator().manual_seed(7))

    def call(net: nn.Module, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return net(
            hidden_states=x,
            encoder_hidden_states=texts[labels],
            pooled_projections=texts[labels, 0],
            timestep=t / 1000,
            img_ids=torch.zeros(16, 3),
            txt_ids=torch.zeros(6, 3),
        ).sample

    return Net(network, (16, 4), call)


@pytest.fixture
def networks() -> Mapping[str, Callable[[], Net]]:
    """By name; each call makes a new one."""
    return {"dit": our_dit, "diffusers-dit": diffusers_dit, "flux": flux}


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """A checkpoint of pointgen at its smallest, of 8 steps, to be written to."""
    from polydit.pointgen.model import PointDiT
    from polydit.pointgen.pipeline import PointPipeline
    from polydit.pointgen.schedules import edm_scheduler

    torch.manual_seed(0)
    network = PointDiT(voxels=8, patch_size=4, width=24, depth=2, heads=2, num_classes=1)
    for parameter in network.parameters():
        if not bool(parameter.any()):  # adaLN-Zero: the network would be the identity
            nn.init.normal_(parameter, std=0.1)
    pipeline = PointPipeline(
        network.eval(), edm_scheduler(), categories=("chair",), num_points=64, num_steps=8
    )
    pipeline.save_pretrained(tmp_path / "clouds")
    return tmp_path / "clouds"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for the tests of one file."""
    if find_chromium() is None:
        pytest.skip("no chromium on the PATH (Debian: apt-get install chromium)")
    with start_browser() as browser:
        yield browser
