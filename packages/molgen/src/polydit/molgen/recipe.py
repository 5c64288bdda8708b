"""A whole training run as data: what `molgen train` reads from its TOML file and from `--set`. No heavy imports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from polydit.core.errors import InputError
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
        pose: "canonical" gives every structure one pose and one order of atoms; "random" rotates at random, as published.
        latent_channels: Latent numbers per atom.
        kl: Weight of the autoencoder's KL term. Published: 1e-5.
        mask_types: Share of atoms whose type the encoder does not see. Published: 0.1.
        noise_positions: Share of atoms that the encoder sees moved. Published: 0.1.
        label_dropout: Probability of null labels, for guidance. Published: 0.1.
        self_condition: Probability of self-conditioning. Published: 0.5.
        geometric_loss: Weight of GFMDiff's geometric loss on denoised positions of molecules; 0 = off.
        autoencoder: Size of the autoencoder.
        denoiser: Size of the latent DiT.
        modulation: "adaln" as published, or "adaln_single": a third fewer weights.
        autoencoder_training: Settings of the first stage.
        denoiser_training: Settings of the second stage.
        num_steps: Default number of sampling steps, stored with the checkpoint.
        guidance_scale: Default guidance, stored with the checkpoint; 1 = none.
    """

    pose: str = "canonical"
    latent_channels: int = 8
    kl: float = 1e-5
    mask_types: float = 0.0
    noise_positions: float = 0.0
    label_dropout: float = 0.1
    self_condition: float = 0.5
    geometric_loss: float = 0.0
    autoencoder: NetworkSize = field(default_factory=lambda: NetworkSize(width=128, depth=3, heads=4))
    denoiser: NetworkSize = field(default_factory=lambda: NetworkSize(width=224, depth=7, heads=7))
    modulation: str = "adaln_single"
    autoencoder_training: TrainConfig = field(default_factory=lambda: TrainConfig(steps=4000, learning_rate=1e-3))
    denoiser_training: TrainConfig = field(default_factory=lambda: TrainConfig(steps=20000, learning_rate=1e-3))
    num_steps: int = 50
    guidance_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.pose not in ("canonical", "random"):
            raise InputError(f"unknown pose {self.pose!r}", where="pose", expected="canonical or random")
        if self.modulation not in ("adaln", "adaln_single"):
            raise InputError(f"unknown modulation {self.modulation!r}", where="modulation", expected="adaln or adaln_single")


def updated(settings: Any, changes: Mapping[str, Any], where: str = "") -> Any:
    """A settings dataclass with a nested mapping laid over it.

    Raises:
        InputError: If a key is unknown (with the known ones) or a value has another type.
    """
    known = {f.name: getattr(settings, f.name) for f in fields(settings)}
    new: dict[str, Any] = {}
    for key, value in changes.items():
        name = f"{where}.{key}" if where else key
        if key not in known:
            raise InputError(f"unknown setting {name!r}", expected="one of " + ", ".join(sorted(known)))
        current = known[key]
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise InputError(f"{name} is a table of settings", where=name, expected=f"{name}.<setting> = value")
            new[key] = updated(current, value, name)
        elif isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
            new[key] = float(value)
        elif type(value) is not type(current):
            expected = f"{type(current).__name__}, such as {current!r}"
            raise InputError(f"{value!r} does not fit", where=name, expected=expected)
        else:
            new[key] = value
    return replace(settings, **new)
