"""What DiT-3D learns: from a noisy cloud what its points came from, under one of three objectives.

Shapes: b clouds, m points that are known of a shape, n points that the network sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from polydit.core.nn.embeddings import drop_labels
from polydit.core.objectives import EDM, FlowMatching, GaussianDiffusion, LogNormalNoise
from polydit.pointgen.cloud import Cloud, Normalisation
from polydit.pointgen.model import PointDiT
from polydit.pointgen.recipe import Recipe
from polydit.pointgen.schedules import betas

Objective = EDM | FlowMatching | GaussianDiffusion


def objective_of(recipe: Recipe) -> Objective:
    """The recipe's objective, for data of deviation 1."""
    if recipe.objective == "edm":
        return EDM(sigma_data=1.0, noise=LogNormalNoise(recipe.noise_mean, recipe.noise_std))
    if recipe.objective == "flow":
        return FlowMatching()
    return GaussianDiffusion(betas(recipe.schedule))


@dataclass(frozen=True, eq=False)
class CloudBatch:
    """Shapes of one batch.

    Args:
        points: Normalised, as many as all of them have, shape (b, m, 3).
        labels: Categories.
    """

    points: Float[Tensor, "b m 3"]
    labels: Int[Tensor, " b"]

    def to(self, device: torch.device) -> CloudBatch:
        """On another device."""
        return CloudBatch(self.points.to(device), self.labels.to(device))

    def draw(self, num_points: int, generator: torch.Generator) -> Float[Tensor, "b n 3"]:
        """Points drawn with replacement, as published."""
        rows, known, _ = self.points.shape
        chosen = torch.randint(known, (rows, num_points), generator=generator).to(self.points.device)
        return self.points.gather(1, chosen[..., None].expand(-1, -1, 3))


@dataclass(frozen=True)
class Collate:
    """Clouds to a batch: normalised, cut to the smallest number of points among them.

    Args:
        categories: Names in the order of their labels.
        normalisation: Of the data set.
    """

    categories: tuple[str, ...]
    normalisation: Normalisation

    def __call__(self, clouds: Sequence[Cloud]) -> CloudBatch:
        shared = min(cloud.num_points for cloud in clouds)
        points = np.stack([self.normalisation.normalise(cloud.points[:shared]) for cloud in clouds])
        labels = torch.tensor([self.categories.index(cloud.category) for cloud in clouds])
        return CloudBatch(torch.from_numpy(points), labels)


@dataclass(eq=False)
class PointTask:
    """Train the network on clouds.

    Args:
        model: The network.
        objective: What it learns.
        num_points: Points that it sees of a cloud.
        label_dropout: Probability of the null category.
    """

    model: PointDiT
    objective: Objective
    num_points: int = 2048
    label_dropout: float = 0.1

    def loss(self, model: nn.Module, batch: CloudBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean over clouds of the objective's own error."""
        data = batch.draw(self.num_points, generator)
        noise = torch.randn(data.shape, generator=generator).to(data)
        labels = drop_labels(batch.labels, self.model.config.num_classes, self.label_dropout, generator)
        return {"loss": self._errors(model, data, noise, labels, generator).mean()}

    def _errors(
        self,
        model: nn.Module,
        data: Float[Tensor, "b n 3"],
        noise: Float[Tensor, "b n 3"],
        labels: Int[Tensor, " b"],
        generator: torch.Generator,
    ) -> Float[Tensor, " b"]:
        objective = self.objective
        if isinstance(objective, GaussianDiffusion):
            t = torch.randint(len(objective.betas), (len(data),), generator=generator).to(data.device)
            return objective.loss(model(objective.noisy(data, noise, t), t, labels), data, noise, t)
        sample = objective.noisy(data, noise, generator)
        if isinstance(objective, EDM):
            scaled, told = objective.scaled(sample.x_t, sample.t), objective.condition(sample.t)
            return objective.loss(model(scaled, told, labels), sample)
        return objective.loss(model(sample.x_t, sample.t, labels), sample)
