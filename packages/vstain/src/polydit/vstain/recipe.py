"""A whole training run as data: what `vstain train` reads from a TOML file and from `--set`. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field

from polydit.core.errors import InputError
from polydit.core.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSettings:
    """The network.

    Args:
        patch_size: Pixels per axis of a patch.
        width: Token width; a multiple of `heads`, and a head's width one of 4.
        heads: Attention heads.
        encoder_depth: Blocks over the H&E.
        image_depth: Blocks that denoise the stain.
        mask_depth: Blocks that denoise the mask of positive cells; 0 = the stain alone is learnt.
        mlp_ratio: Hidden width of the feed-forward over `width`.
        radius: Of attention, in tokens.
    """

    patch_size: int = 8
    width: int = 192
    heads: int = 3
    encoder_depth: int = 4
    image_depth: int = 4
    mask_depth: int = 2
    mlp_ratio: float = 4.0
    radius: int = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides a training run besides its data.

    Args:
        mpp: Microns per pixel of the tiles, stored with the checkpoint; 0 = as the data say.
        crop: Pixels of a side of the square that is cut from each tile, anew in every step; a multiple of the patch.
        he_dropout: Probability that the H&E is hidden, for guidance.
        mask_weight: Weight of the mask's error over the stain's.
        gamma: Largest weight of a step's error in the clean picture (min-SNR, Hang et al. 2023, equation 8 for v).
        share: Of the training pairs that are used, the first ones of each stain.
        network: The network.
        num_steps: Default number of sampling steps, stored with the checkpoint.
        guidance_scale: Default guidance, stored with the checkpoint; 1 = none.
        training: Settings of the training.
    """

    mpp: float = 0.0
    crop: int = 128
    he_dropout: float = 0.05
    mask_weight: float = 0.5
    gamma: float = 25.0
    share: float = 1.0
    network: NetworkSettings = field(default_factory=NetworkSettings)
    num_steps: int = 10
    guidance_scale: float = 1.0
    training: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=4000,
            batch_size=8,
            learning_rate=1e-3,
            muon_learning_rate=0.02,
            save_every=250,
            log_every=50,
        )
    )

    def __post_init__(self) -> None:
        network = self.network
        if network.width % network.heads or (network.width // network.heads) % 4:
            raise InputError(
                f"width {network.width} in {network.heads} heads",
                where="network.width",
                expected="a multiple of 4 x heads",
            )
        if self.crop < 1 or self.crop % network.patch_size:
            raise InputError(
                f"a crop of {self.crop} pixels", where="crop", expected=f"a multiple of {network.patch_size}"
            )
        if not 0.0 < self.share <= 1.0:
            raise InputError(f"a share of {self.share:g}", where="share", expected="above 0, at most 1")
        if self.num_steps < 1:
            raise InputError(f"num_steps is {self.num_steps}", where="num_steps", expected="1 or more")
