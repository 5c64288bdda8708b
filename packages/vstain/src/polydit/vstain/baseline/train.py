"""What pix2pix learns: to make a stain that is near the real one and that a critic takes for real.

    generator:  BCE(critic(H&E, made), real) + 100 |made - real|
    critic:     (BCE(critic(H&E, real), real) + BCE(critic(H&E, made), made)) / 2

(Isola et al. 2017, equations 1 to 4.) Both take their step at once; published, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from polydit.vstain.baseline.networks import PatchCritic, UNetGenerator
from polydit.vstain.train import TileBatch


class GanNetworks(nn.Module):
    """Generator and critic, judged in one call, so that one backward pass serves both.

    Args:
        generator: Makes the stain.
        critic: Judges it.
    """

    def __init__(self, generator: UNetGenerator, critic: PatchCritic) -> None:
        super().__init__()
        self.generator, self.critic = generator, critic

    def forward(
        self, he: Float[Tensor, "b 3 h w"], ihc: Float[Tensor, "b 3 h w"], stain: Int[Tensor, " b"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The mean errors "l1", "gan" (of the generator) and "critic"; images in [-1, 1]."""
        made = self.generator(he, stain)
        # what the generator is told must not teach the critic to be fooled
        self.critic.requires_grad_(False)
        gan = _error(self.critic(he, made, stain), real=True)
        self.critic.requires_grad_(True)
        real = _error(self.critic(he, ihc, stain), real=True)
        fake = _error(self.critic(he, made.detach(), stain), real=False)
        return {"l1": (made - ihc).abs().mean(), "gan": gan, "critic": (real + fake) / 2}


def _error(logits: Float[Tensor, "b 1 r s"], *, real: bool) -> Float[Tensor, ""]:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


@dataclass(eq=False)
class GanTask:
    """Train both networks on pairs.

    Args:
        model: The networks.
        crop: Pixels of a side of what they see.
        l1_weight: Of the mean absolute error.
    """

    model: GanNetworks
    crop: int
    l1_weight: float

    def loss(self, model: nn.Module, batch: TileBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """The errors, and their sum as "loss"."""
        seen = batch.crops(self.crop, generator)
        errors = model(seen.he, seen.ihc, seen.stain)
        loss = errors["gan"] + self.l1_weight * errors["l1"] + errors["critic"]
        return {"loss": loss, **errors}
