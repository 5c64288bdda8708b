"""A whole training run as data: what `robopolicy train` reads from a TOML file and from `--set`. No heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from polydit.core.training.config import TrainConfig

Mode = Literal["mean_std", "min_max", "quantiles", "identity"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSize:
    """Width, depth and heads of the network.

    Args:
        width: Token width.
        depth: Blocks.
        heads: Attention heads.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class RDTSettings:
    """What only RDT has.

    Args:
        arm: Mapping of the robot into the unified layout of 128 slots, a name or a TOML file; "" = the robot's numbers
            as they are. With it, states and actions are best left in SI units: state = action = "identity".
        norm: "timm-1.0.3" as published, or "rms".
        drop_conditions: Probability of withholding each condition in training. Published: 0.1.
        state_noise: Noise on states in training, as a share of their deviation. Published: 0.01.
        patch_size: Height and width in pixels of the patches that pictures are cut into.
    """

    arm: str = ""
    norm: Literal["timm-1.0.3", "rms"] = "timm-1.0.3"
    drop_conditions: float = 0.0
    state_noise: float = 0.0
    patch_size: int = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class MoDESettings:
    """What only MoDE has.

    Args:
        experts: Experts in a block.
        active_experts: Experts that a noise level uses.
        hidden_ratio: Hidden width of one expert over the token width. Published: 4.
        dense: One feed-forward as large as all experts together instead of them, to compare with.
        goal_dropout: Share of the goal's numbers that training sets to zero. Published: 0.1.
        balance_weight: Weight of the loss that spreads noise levels over experts. Published: 0.01.
    """

    experts: int = 4
    active_experts: int = 2
    hidden_ratio: int = 2
    dense: bool = False
    goal_dropout: float = 0.0
    balance_weight: float = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class PADSettings:
    """What only PAD has.

    Args:
        joint: Whether future frames are denoised with the actions.
        future_frames: How many.
        frame_skip: Steps from one to the next. Published: 4 on MetaWorld.
        patch_size: Height and width in pixels of the patches that pictures are cut into.
        action_tokens: Tokens that hold the chunk; 0 = one per action, 1 = one for all, as published on MetaWorld.
        known_state: Numbers at the start of the state that the policy knows; -1 = all. Published: 4, the hand's pose.
        prediction: What the network returns. Published, on latents with a large network: "epsilon"; a small network on
            pixels hardly learns that ("sample": a thirtieth of its loss on frames after 200 steps).
        action_weight: Weight of the actions' loss beside the frames'. Published: 1.
    """

    joint: bool = True
    future_frames: int = 3
    frame_skip: int = 4
    patch_size: int = 8
    action_tokens: int = 0
    known_state: int = 4
    prediction: Literal["epsilon", "sample", "v"] = "sample"
    action_weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides a training run besides its data. The defaults train a state policy in two CPU-minutes.

    Args:
        model: "rdt", "mode" or "pad".
        network: Size of its network.
        rdt: Settings of RDT.
        mode: Settings of MoDE.
        pad: Settings of PAD.
        horizon: Actions in a chunk.
        execute: Actions of a chunk that are executed before the policy plans again.
        num_steps: Network calls per chunk, stored with the policy; 0 = the model's own default.
        cameras: Cameras whose pictures the policy sees, by name; none = a state policy. PAD needs one.
        image_size: Side of the square, in pixels, that pictures are scaled to.
        state: Normalisation of states.
        action: Normalisation of actions.
        language_width: Width of the vectors that stand for instructions when no embeddings are given.
        training: Settings of the training.
    """

    model: Literal["rdt", "mode", "pad"] = "mode"
    network: NetworkSize = field(default_factory=NetworkSize)
    rdt: RDTSettings = field(default_factory=RDTSettings)
    mode: MoDESettings = field(default_factory=MoDESettings)
    pad: PADSettings = field(default_factory=PADSettings)
    horizon: int = 4
    execute: int = 4
    num_steps: int = 0
    cameras: tuple[str, ...] = ()
    image_size: int = 64
    state: Mode = "mean_std"
    action: Mode = "min_max"
    language_width: int = 64
    training: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=300,
            batch_size=256,
            learning_rate=1e-3,
            muon_learning_rate=0.02,
            warmup=50,
            ema=0.995,
            precision="no",
            log_every=50,
        )
    )

    def __post_init__(self) -> None:
        for name in ("horizon", "execute", "image_size", "language_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.num_steps < 0:
            raise ValueError(f"num_steps is {self.num_steps}, expected 0 or more")
