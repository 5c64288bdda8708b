"""A whole training run of the baseline as data. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field

from polydit.core.errors import InputError
from polydit.core.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class GanRecipe:
    """Everything that decides a training run of pix2pix besides its data.

    Args:
        mpp: As of our own `Recipe`.
        share: Likewise.
        crop: Pixels of a side of the square that is cut from each tile, anew in every step. Published: 256.
        width: Channels of the generator after its first halving; 64 as published is 29 million parameters.
        depth: Halvings of the generator; sides of tiles are multiples of 2^depth. Published: 8, for crops of 256.
        critic_width: Channels of the discriminator after its first convolution. Published: 64.
        l1_weight: Weight of the mean absolute error beside the adversarial loss. Published: 100.
        beta1: Decay of Adam's mean of gradients; that of their squares is 0.999. Published: 0.5.
        training: Settings of the training, by Adam. Published: 2e-4, constant for the first half, then falling to 0.
    """

    mpp: float = 0.0
    share: float = 1.0
    crop: int = 128
    width: int = 38
    depth: int = 5
    critic_width: int = 32
    l1_weight: float = 100.0
    beta1: float = 0.5
    training: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=4000,
            batch_size=16,
            learning_rate=2e-4,
            warmup=0,
            clip=0.0,
            ema=0.0,
            save_every=250,
            log_every=50,
        )
    )

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise InputError(f"a share of {self.share:g}", where="share", expected="above 0, at most 1")
        if self.depth < 2:
            raise InputError(f"depth is {self.depth}", where="depth", expected="at least 2")
        if self.crop < 32 or self.crop % 2**self.depth:
            raise InputError(
                f"a crop of {self.crop} pixels",
                where="crop",
                expected=f"a multiple of {2**self.depth}, 32 or more",
            )
        if min(self.width, self.critic_width) < 1:
            raise InputError("a network needs a channel", where="width", expected="1 or more")
        if self.training.muon_learning_rate or self.training.weight_decay:
            raise InputError(
                "pix2pix is trained by Adam alone", where="training", expected="no Muon, no weight decay"
            )
        if not 0.0 <= self.beta1 < 1.0:
            raise InputError(f"beta1 is {self.beta1:g}", where="beta1", expected="0 to below 1")
