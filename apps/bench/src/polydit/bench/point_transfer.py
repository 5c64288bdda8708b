"""DiT-3D's 2D to 3D transfer at our scale: blocks trained on pictures as the start of a network of clouds.

The pictures are depth maps of parametric shapes, since no large image network is at hand; the clouds are of other
shapes of the same categories. Both networks of clouds see the same batches, noise and times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from polydit.bench.rows import Row
from polydit.core.jobs.seeds import item_generator
from polydit.core.models.convert import transfer_blocks
from polydit.core.models.dit import DiT
from polydit.core.objectives.edm import EDM
from polydit.core.objectives.times import LogNormalNoise
from polydit.pointgen.cloud import Cloud, Normalisation
from polydit.pointgen.data.shapes import CATEGORIES, shape_points
from polydit.pointgen.model import PointDiT
from polydit.pointgen.train import Collate, PointTask

WIDTH, DEPTH, HEADS = 144, 4, 6
PIXELS, VOXELS, PATCH = 32, 16, 4  # 64 tokens each
BATCH, POINTS = 16, 1024
_OBJECTIVE = EDM(sigma_data=1.0, noise=LogNormalNoise(-0.8, 1.4))


def transfer_rows(*, quick: bool) -> Iterator[Row]:
    """Loss of the clouds' network after equal steps, from pictures' blocks over from scratch."""
    shapes, steps_2d, steps = (24, 30, 30) if quick else (300, 600, 600)
    pictures = _train_pictures(_depth_maps(shapes), steps_2d)
    clouds = [
        Cloud(id=f"{c}{i}", points=shape_points(c, 1, i, 2 * POINTS), category=c)
        for c in CATEGORIES
        for i in range(shapes)
    ]
    curves = {
        name: _train_clouds(clouds, steps, start)
        for name, start in (("from pictures", pictures), ("scratch", None))
    }
    last = max(1, steps // 6)
    ours, plain = (fmean(curves[name][-last:]) for name in ("from pictures", "scratch"))
    half = {name: fmean(curve[steps // 2 - last : steps // 2]) for name, curve in curves.items()}
    catches_up = next(
        (k for k in range(last, steps) if fmean(curves["from pictures"][k - last : k]) <= plain), steps
    )
    yield Row(
        key="transfer loss",
        what="DiT-3D, loss at equal steps from the blocks of a network of pictures over from scratch",
        value=ours / plain,
        unit="×",
        asked=1.0,
        how=f"{WIDTH} wide, {DEPTH} blocks, {steps_2d} steps on depth maps of {PIXELS}² pixels, then {steps} steps on "
        f"clouds of {POINTS} points, {VOXELS}³ cells, batch {BATCH}, one seed, mean of the last {last} steps: "
        f"{ours:.4f} against {plain:.4f}; half-way {half['from pictures']:.4f} against {half['scratch']:.4f}",
        details=curves,
    )
    yield Row(
        key="transfer steps",
        what="DiT-3D, steps from pictures to the loss that scratch ends with, over its steps",
        value=catches_up / steps,
        unit="×",
        how=f"the same runs: {catches_up} of {steps} steps",
    )


def _depth_maps(shapes: int) -> Float[Tensor, "n 1 h w"]:
    """Pictures of shapes from the front: how near the nearest point of each pixel is, 0 where none is."""
    maps = [
        _depth_map(shape_points(category, 0, index, 4096))
        for category in CATEGORIES
        for index in range(shapes)
    ]
    images = torch.from_numpy(np.stack(maps))[:, None]
    return (images - images.mean()) / images.std()


def _depth_map(points: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "h w"]:
    unit = (points - points.min(0)) / np.ptp(points, axis=0).max()
    x, y, depth = (unit * np.array([PIXELS - 1, PIXELS - 1, 1.0], np.float32)).T
    picture = np.zeros((PIXELS, PIXELS), np.float32)
    np.maximum.at(picture, (PIXELS - 1 - y.astype(int), x.astype(int)), 0.2 + 0.8 * (1.0 - depth))
    return picture


def _train_pictures(images: Float[Tensor, "n 1 h w"], steps: int) -> DiT:
    torch.manual_seed(0)
    network = DiT(
        sample_size=PIXELS,
        patch_size=PATCH,
        in_channels=1,
        width=WIDTH,
        depth=DEPTH,
        heads=HEADS,
        num_classes=len(CATEGORIES),
        learn_sigma=False,
        feed_forward="gelu",
    )
    labels = torch.arange(len(CATEGORIES)).repeat_interleave(len(images) // len(CATEGORIES))

    def loss(step: int) -> Tensor:
        generator = item_generator(0, f"picture/{step}")
        chosen = torch.randint(len(images), (BATCH,), generator=generator)
        noise = torch.randn((BATCH, *images.shape[1:]), generator=generator)
        sample = _OBJECTIVE.noisy(images[chosen], noise, generator)
        scaled, told = _OBJECTIVE.scaled(sample.x_t, sample.t), _OBJECTIVE.condition(sample.t)
        return _OBJECTIVE.loss(network(scaled, told, labels[chosen]).sample, sample).mean()

    _descend(network, loss, steps)
    return network


def _train_clouds(clouds: list[Cloud], steps: int, start: DiT | None) -> list[float]:
    """The loss of every step."""
    torch.manual_seed(1)
    network = PointDiT(
        voxels=VOXELS, patch_size=PATCH, width=WIDTH, depth=DEPTH, heads=HEADS, num_classes=len(CATEGORIES)
    )
    if start is not None:
        transfer_blocks(network.dit, start)
    collate = Collate(CATEGORIES, Normalisation.of(np.stack([cloud.points for cloud in clouds])))
    task = PointTask(network, _OBJECTIVE, POINTS)

    def loss(step: int) -> Tensor:
        generator = item_generator(1, f"cloud/{step}")
        chosen = torch.randint(len(clouds), (BATCH,), generator=generator).tolist()
        return task.loss(network, collate([clouds[i] for i in chosen]), generator)["loss"]

    return _descend(network, loss, steps)


def _descend(network: torch.nn.Module, loss: Callable[[int], Tensor], steps: int) -> list[float]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    losses = []
    for step in range(steps):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(step)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(float(value.detach()))
    return losses
