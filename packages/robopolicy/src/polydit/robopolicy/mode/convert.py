"""Published MoDE checkpoints (``mbreuss/MoDE_CALVIN_ABC_1``, ``MoDE_Pretrained``, ...) to ours.

A checkpoint is a folder of ``model_cleaned.safetensors`` or ``model_cleaned.pt`` (a state dict under ``state_dict``)
and ``config.json``, or such a weight file alone. All sizes are read from the tensors' shapes; the config tells how
many experts are chosen, and whether the network is one that we know. The text encoder is no part of ours: goals come
as embeddings of CLIP ViT-B/32.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polydit.core.checkpoints.keys import KeyMap, below, count_blocks
from polydit.core.checkpoints.published import find_weights, read_weights
from polydit.core.checkpoints.weights import load_strict
from polydit.core.errors import CheckpointError
from polydit.robopolicy.mode.network import MoDE

__all__ = ["MoDEConfig", "network_from_published", "read_mode"]

_WEIGHTS = ("model_cleaned.safetensors", "model_cleaned.pt")
_TRAINING_NAMES = ("omegaconf.", "pytorch_lightning.", "lightning.", "mode.", "typing.", "pathlib.")
# The encoders' names in fine-tuned and in pre-trained checkpoints, in the order of the cameras' tokens.
_CAMERAS = (
    "static_resnet.", "img_encoder_image_primary.", "img_encoder_image_secondary.",
    "gripper_resnet.", "img_encoder_image_wrist.",
)  # fmt: skip
_TEXT_ENCODER = "language_goal."
_OTHER_NETWORKS = {  # settings whose other values make a network that we do not have
    "use_goal_in_routing": False,
    "use_shared_expert": False,
    "use_proprio": False,
    "use_custom_attn_mask": False,
    "cond_router": True,
    "use_noise_token_as_input": True,
    "goal_conditioned": True,
    "causal": True,
    "linear_output": True,
    "goal_seq_len": 1,
    "obs_seq_len": 1,
}
_BLOCK = {
    "ln_1.g": "norm1.weight",
    "ln_2.g": "norm2.weight",
    "attn.qkv.{p}": "attn.qkv.{p}",  # made by _stacked
    "attn.c_proj.weight": "attn.out.weight",
    "attn.q_norm.g": "attn.norm_q.weight",
    "attn.k_norm.g": "attn.norm_k.weight",
    "router.router.mlp.0.{p}": "mlp.router.net.fc1.{p}",
    "router.router.mlp.3.{p}": "mlp.router.net.fc2.{p}",
    "w_in": "mlp.experts.w_in",  # made by _stacked, as the two below
    "b_in": "mlp.experts.b_in",
    "w_out": "mlp.experts.w_out",
}
_PUBLISHED = KeyMap(
    {
        **{f"blocks.{{n}}.{theirs}": f"blocks.{{n}}.{ours}" for theirs, ours in _BLOCK.items()},
        "pos_emb": "positions",
        "sigma_emb.{p}": "noise_embed.0.{p}",
        "sigma_linear.weight": "noise_embed.1.weight",
        "tok_emb.weight": "observation_embed.weight",
        "goal_emb.weight": "goal_embed.weight",
        "action_emb.weight": "action_embed.weight",
        "ln.g": "norm.weight",
        "out.{p}": "out.{p}",
    },
    dropped=["gripper_embed.weight"],  # no published forward pass uses it
)


@dataclass(frozen=True, kw_only=True)
class MoDEConfig:
    """What the tensors' shapes do not tell.

    Args:
        top_k: Experts that a noise level uses.
        normalize: Whether the weights of the chosen experts are scaled to the sum 1.
    """

    top_k: int = 2
    normalize: bool = True

    @classmethod
    def parse(cls, content: Mapping[str, Any], *, source: str = "the config") -> MoDEConfig:
        """From the published settings, at whatever depth they stand; what is not set is as published.

        Raises:
            CheckpointError: They describe a network that we do not have.
        """
        settings = dict(_leaves(content))
        for name, known in _OTHER_NETWORKS.items():
            if settings.get(name, known) != known:
                problem = f"{name} is {settings[name]}, a variant that is not supported"
                raise CheckpointError(problem, where=source, expected=str(known))
        top_k, normalize = settings.get("top_k", cls.top_k), settings.get("router_normalize", cls.normalize)
        if type(top_k) is not int or type(normalize) is not bool:
            raise CheckpointError(f"top_k is {top_k!r} and router_normalize {normalize!r}", where=source)
        return cls(top_k=top_k, normalize=normalize)


def read_mode(path: Path, *, top_k: int | None = None) -> MoDE:
    """Reads a published checkpoint: the transformer, and the encoders of pictures if they are there.

    Args:
        path: The folder, or a weight file.
        top_k: Experts that a noise level uses; None = what ``config.json`` says, else 2.

    Raises:
        CheckpointError: A file is missing, not safe, damaged or of another kind.
    """
    file = find_weights(Path(path), _WEIGHTS, kind="MoDE")
    config = _read_config(file.with_name("config.json"))
    if top_k is not None:
        config = MoDEConfig(top_k=top_k, normalize=config.normalize)
    state = read_weights(file, kind="MoDE", under=("state_dict",), inert=_TRAINING_NAMES)
    return network_from_published(state, config, source=str(file))


def network_from_published(
    state: Mapping[str, Tensor], config: MoDEConfig | None = None, *, source: str = "the checkpoint"
) -> MoDE:
    """Builds the network from the published agent's state dict, or from its denoiser's alone (``inner_model.*``).

    Args:
        state: Published names and shapes.
        config: The rest; None = as published.
        source: Where it comes from, for messages.

    Raises:
        CheckpointError: An entry is missing, unknown or of a shape that does not fit.
    """
    config = config or MoDEConfig()
    ours = {
        key.removeprefix("model."): value for key, value in state.items() if not key.startswith(_TEXT_ENCODER)
    }
    cameras = [name for name in _CAMERAS if any(key.startswith(name) for key in ours)]
    unknown = [key for key in ours if not key.startswith(("inner_model.", *_CAMERAS))]
    if unknown:
        problem = f"unknown entries {', '.join(unknown[:4])}: this checkpoint is of another kind"
        raise CheckpointError(problem, where=source)
    try:
        converted = _PUBLISHED.to_ours(_stacked(below("inner_model.", ours)), source=source)
        converted["positions"] = converted["positions"][0]
        sizes = _read_sizes(converted)
    except KeyError as missing:
        raise CheckpointError(
            f"not a checkpoint of MoDE: {missing.args[0]} is missing", where=source
        ) from None
    except (RuntimeError, IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"not a checkpoint of MoDE: {error}", where=source) from None
    for index, name in enumerate(cameras):
        converted |= {f"encoders.{index}.{key}": value for key, value in below(name, ours).items()}
    try:
        network = MoDE(
            **sizes,
            cameras=len(cameras),
            encoder="film_resnet50",
            top_k=config.top_k,
            normalize=config.normalize,
        )
    except ValueError as error:
        raise CheckpointError(f"the sizes do not fit one another: {error}", where=source) from None
    load_strict(network, converted, source=source)
    return network.eval()


def _stacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of each block in one matrix, and the weights of its experts in one tensor each."""
    stacked = dict(state)
    for block in (f"blocks.{n}." for n in range(count_blocks(state))):
        for part in ("weight", "bias"):
            names = [f"{block}attn.{name}.{part}" for name in ("query", "key", "value")]
            stacked[f"{block}attn.qkv.{part}"] = torch.cat([stacked.pop(name) for name in names])
        count = count_blocks(state, f"{block}experts.expert_") or 1
        experts = [f"{block}experts.expert_{n}.mlp." for n in range(count)]
        first = [_gate_first(stacked.pop(f"{name}0.project.weight")).t() for name in experts]
        stacked[f"{block}w_in"] = torch.stack(first)
        biases = [_gate_first(stacked.pop(f"{name}0.project.bias")) for name in experts]
        stacked[f"{block}b_in"] = torch.stack(biases)
        stacked[f"{block}w_out"] = torch.stack([stacked.pop(f"{name}2.weight").t() for name in experts])
    return stacked


def _gate_first(rows: Tensor) -> Tensor:
    """Published rows are (up | gate), ours (gate | up)."""
    up, gate = rows.chunk(2)
    return torch.cat([gate, up])


def _read_sizes(converted: Mapping[str, Tensor]) -> dict[str, int]:
    """The constructor's arguments that shapes tell."""
    tokens, width = converted["positions"].shape
    experts, hidden, _ = converted["blocks.0.mlp.experts.w_out"].shape
    return {
        "horizon": tokens - 1,  # the first row is the goal's
        "action_dim": converted["out.weight"].shape[0],
        "observation_dim": converted["observation_embed.weight"].shape[1],
        "goal_dim": converted["goal_embed.weight"].shape[1],
        "width": width,
        "depth": count_blocks(converted),
        "heads": width // converted["blocks.0.attn.norm_q.weight"].shape[0],
        "num_experts": experts,
        "hidden_ratio": hidden // width,
    }


def _leaves(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All settings by their own names; those that refer to another one are left out."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        elif not (isinstance(value, str) and value.startswith("${")):
            yield key, value


def _read_config(path: Path) -> MoDEConfig:
    """`config.json` beside the weights; without one, the published settings."""
    if not path.is_file():
        return MoDEConfig()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise CheckpointError("this is no config of MoDE", where=str(path))
    return MoDEConfig.parse(content, source=str(path))
