"""A whole training run as data: what `pointgen train` reads from a TOML file and from `--set`. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from polydit.core.errors import InputError
from polydit.core.training.config import TrainConfig

Objective = Literal["edm", "flow", "noise"]
Schedule = Literal["linear", "warm0.1", "warm0.2", "warm0.5"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSettings:
    """The network.

    Args:
        voxels: Cells per axis.
        patch_size: Cells per axis of a patch.
        width: Token width; a multiple of 6 and of `heads`.
        depth: Blocks.
        heads: Attention heads.
        mlp_ratio: Hidden width of the feed-forward over `width`.
        window: Tokens per axis of attention's windows; 0 = none.
        window_blocks: The blocks that have it. Published: 0, 3, 6, ...; the fewer see everything, the less it costs.
        modulation: "adaln" as published, or "adaln_single": a third fewer weights.
        extent: Half the side of the grid, for clouds of deviation 1. 0 as published: the grid fits each cloud, so that
            a cell means another place in each of them.
        occupancy: Whether the network sees how many points a cell holds. Published: False.
        point_channels: Numbers that each point reads from the grid for a network of its own. Published: 0, none.
    """

    voxels: int = 24
    patch_size: int = 4
    width: int = 240
    depth: int = 8
    heads: int = 6
    mlp_ratio: float = 4.0
    window: int = 0
    window_blocks: tuple[int, ...] = ()
    modulation: Literal["adaln", "adaln_single"] = "adaln_single"
    extent: float = 2.75
    occupancy: bool = True
    point_channels: int = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides a training run besides its data.

    Args:
        objective: "edm": denoising with EDM's preconditioned network. "flow": the velocity of the straight path.
            "noise": as published, with one of its schedules.
        schedule: Betas of "noise". Published: "warm0.1" for airplanes, else "linear".
        noise_mean: Mean of the logarithm of the noise level in training, for "edm" (data have deviation 1). Far above
            EDM's own for pictures: thousands of points tell the shape together where none of them does alone.
        noise_std: Its deviation.
        num_points: Points of a training cloud, drawn anew in every step.
        label_dropout: Probability of the null category, for guidance. Published: 0.1.
        network: The network.
        num_steps: Default number of sampling steps, stored with the checkpoint; 0 = 25, or 1000 for "noise".
        guidance_scale: Default guidance, stored with the checkpoint; 1 = none.
        training: Settings of the training.
    """

    objective: Objective = "edm"
    schedule: Schedule = "linear"
    noise_mean: float = 0.4
    noise_std: float = 1.8
    num_points: int = 2048
    label_dropout: float = 0.1
    network: NetworkSettings = field(default_factory=NetworkSettings)
    num_steps: int = 0
    guidance_scale: float = 1.0
    training: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=4000,
            batch_size=32,
            learning_rate=1e-3,
            muon_learning_rate=0.02,
            save_every=250,
            log_every=50,
        )
    )

    def __post_init__(self) -> None:
        if self.num_points < 2:
            raise InputError(f"num_points is {self.num_points}", expected="at least 2")
        if self.num_steps < 0:
            raise InputError(f"num_steps is {self.num_steps}", expected="0 or more")
        network = self.network
        if network.voxels % network.patch_size:
            raise InputError(
                f"patches of {network.patch_size} cells do not divide {network.voxels} voxels",
                where="network.patch_size",
            )
        grid = network.voxels // network.patch_size
        if network.window and grid % network.window:
            raise InputError(
                f"windows of {network.window} tokens do not divide the {grid} tokens of an axis",
                where="network.window",
                expected=f"a divisor of {grid}, which is voxels / patch_size",
            )
