"""A whole training run as data: what `molgen train` reads from a TOML file and from `--set`. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from polydit.core.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSize:
    """Width, depth and heads of a network.

    Args:
        width: Token width.
        depth: Blocks (of encoder and decoder each, for the autoencoder).
        heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward over `width`.
    """

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides a training run besides its data.

    Args:
        pose: "canonical" gives every structure one pose and one order of atoms; "random" rotates at random, as
            published.
        latent_channels: Latent numbers per atom.
        kl: Weight of the autoencoder's KL term. Published: 1e-5.
        mask_types: Share of atoms whose type the encoder does not see. Published: 0.1.
        noise_positions: Share of atoms that the encoder sees moved. Published: 0.1.
        label_dropout: Probability of null labels, for guidance. Published: 0.1.
        self_condition: Probability of self-conditioning; 0 = none in sampling either. Published: 0.5.
        preconditioned: Whether the denoiser's output is preconditioned (`LinearPath.precondition`). Published: False.
        times: Training times. "uniform": U(0.01, 0.99), as published. "logit-normal": EDM's distribution of noise
            levels (Karras et al. 2022: P_mean -1.2, P_std 1.2), which stays where geometry is decided.
        max_weight_time: The loss weight 1 / (1 - t)² grows up to this time. Published: 0.9.
        geometric_loss: Weight of GFMDiff's geometric loss on denoised positions of molecules; 0 = off.
        autoencoder: Size of the autoencoder.
        denoiser: Size of the latent DiT.
        modulation: "adaln" as published, or "adaln_single": a third fewer weights.
        autoencoder_training: Settings of the first stage. With accumulate = 2, every step sees a micro-batch of each
            kind; with 1, the kinds take turns and pull the weights to and fro.
        denoiser_training: Settings of the second stage.
        num_steps: Default number of sampling steps, stored with the checkpoint.
        guidance_scale: Default guidance, stored with the checkpoint; 1 = none.
        stochastic: Whether sampling draws new noise in every step, stored with the checkpoint. Published: False.
        centred_prior: Whether noise has its mean over atoms subtracted, in training and sampling. Published: True.
        tell_molecule_formula: Probability that the denoiser is told a molecule's formula in training; sampling then
            draws formulas as it draws sizes, from the training data. 0 = never, as published. Without it the
            starter's network does not learn in its time that the valences of a molecule add up to an even number.
        tell_crystal_formula: The same for crystals, whose formula is told in sampling only if it is asked for.
        molecule_share: Share of molecules among the structures of a step, when there are crystals too.
    """

    pose: Literal["canonical", "random"] = "canonical"
    latent_channels: int = 8
    kl: float = 3e-6
    mask_types: float = 0.0
    noise_positions: float = 0.0
    label_dropout: float = 0.1
    self_condition: float = 0.0
    preconditioned: bool = True
    times: Literal["uniform", "logit-normal"] = "logit-normal"
    max_weight_time: float = 0.99
    geometric_loss: float = 0.0
    autoencoder: NetworkSize = field(default_factory=lambda: NetworkSize(width=128, depth=3, heads=4))
    denoiser: NetworkSize = field(default_factory=lambda: NetworkSize(width=224, depth=7, heads=7))
    modulation: Literal["adaln", "adaln_single"] = "adaln_single"
    autoencoder_training: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=4000, batch_size=384, accumulate=2, learning_rate=2e-3, muon_learning_rate=0.02
        )
    )
    denoiser_training: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=7000, batch_size=256, accumulate=2, learning_rate=1e-3, muon_learning_rate=0.02
        )
    )
    num_steps: int = 50
    guidance_scale: float = 1.0
    stochastic: bool = True
    centred_prior: bool = False
    tell_molecule_formula: float = 0.9
    tell_crystal_formula: float = 0.5
    molecule_share: float = 0.75
