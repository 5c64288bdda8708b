"""A small trained DiT, made by the bench itself: caches mean little on random weights.

It learns pictures of four classes by flow matching in about two minutes of one core. SiT's clock: t = 1 is data.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from polydit.core.jobs.seeds import item_generator
from polydit.core.models.dit import DiT
from polydit.core.nn.embeddings import drop_labels
from polydit.core.objectives.flow import LinearPath
from polydit.core.objectives.times import LogitNormalTimes

CLASSES, CHANNELS, PIXELS = 4, 3, 16  # disc, ring, bar, cross
_FOLDER = "toy-dit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """Of the network and of its training; the default has 64 tokens."""

    width: int = 64
    depth: int = 8
    heads: int = 4
    steps: int = 500
    batch: int = 32

    def network(self) -> DiT:
        """Untrained."""
        torch.manual_seed(0)
        return DiT(
            sample_size=PIXELS,
            patch_size=2,
            in_channels=CHANNELS,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            num_classes=CLASSES,
            learn_sigma=False,
        )

    def __str__(self) -> str:
        return f"{self.depth} blocks, {self.width} wide, 64 tokens, trained for {self.steps} steps"


def toy_dit(toy: Toy, out: Path | None = None) -> DiT:
    """The trained network; kept in a folder of `out`, from where the next call takes it.

    Args:
        toy: Sizes. A kept network of other sizes is trained anew, and replaced.
        out: None keeps nothing.
    """
    folder = None if out is None else out / f"{_FOLDER}-{toy.width}x{toy.depth}-{toy.steps}x{toy.batch}"
    if folder is not None and (folder / "config.json").is_file():
        return DiT.from_pretrained(folder).eval()
    network = train(toy)
    if folder is not None:
        network.save_pretrained(folder)
    return network


def train(toy: Toy) -> DiT:
    """Flow matching of the velocity, with dropped labels for guidance; the average of the weights is returned."""
    network = toy.network().train()
    average = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=toy.steps)
    for step in range(toy.steps):
        generator = item_generator(0, f"step/{step}")
        loss = _loss(network, toy.batch, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), network.parameters(), strict=True):
                kept.lerp_(new, max(0.01, 1.0 / (step + 1)))
    return average.eval()


def _loss(network: DiT, batch: int, generator: torch.Generator) -> Tensor:
    labels = torch.randint(CLASSES, (batch,), generator=generator)
    data = pictures(labels, generator)
    noise = torch.randn(data.shape, generator=generator)
    t = LogitNormalTimes().sample(batch, generator)
    told = drop_labels(labels, CLASSES, 0.1, generator)
    predicted = network(LinearPath.interpolate(noise, data, t), t, told).sample
    return (predicted - (data - noise)).square().mean()


def pictures(labels: Int[Tensor, " b"], generator: torch.Generator) -> Float[Tensor, "b c h w"]:
    """A coloured figure on a coloured ground, at a random place and of a random size, in about -1..1.

    Args:
        labels: 0 disc, 1 ring, 2 bar, 3 cross.
        generator: Of places, sizes and colours.
    """
    count = len(labels)
    place, size = (torch.rand((count, n), generator=generator) for n in (2, 1))
    colours = 2 * torch.rand((2, count, CHANNELS, 1, 1), generator=generator) - 1
    axis = torch.linspace(-1, 1, PIXELS)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    dx, dy = (grid - (place[:, i, None, None] - 0.5) for i, grid in enumerate((x, y)))
    radius = (0.3 + 0.4 * size)[..., None]
    far, wide, high = torch.hypot(dx, dy), dx.abs(), dy.abs()
    bar = torch.maximum(wide - radius, high - 0.3 * radius)
    upright = torch.maximum(high - radius, wide - 0.3 * radius)
    distances = torch.stack(
        [far - radius, (far - radius).abs() - 0.15, bar, torch.minimum(bar, upright)]
    )  # to the outline, negative inside
    figure = torch.sigmoid(-20 * distances[labels, torch.arange(count)])[:, None]
    return torch.lerp(colours[0], colours[1], figure)
