"""Published RDT checkpoints (``robotics-diffusion-transformer/rdt-1b``, ``rdt-170m``) to ours, and back.

A checkpoint is a folder of ``config.json`` and ``pytorch_model.bin`` (a state dict) or ``model.safetensors``. Training
with DeepSpeed leaves ``mp_rank_00_model_states.pt``, which holds the state dict under ``module``. All sizes are read
from the tensors' shapes; the config tells how the image tokens lie, and whether the diffusion is one that we know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polydit.core.checkpoints.keys import KeyMap, count_blocks
from polydit.core.checkpoints.published import find_weights, read_weights
from polydit.core.checkpoints.weights import load_strict
from polydit.core.errors import CheckpointError
from polydit.robopolicy.rdt.network import RDT
from polydit.robopolicy.rdt.policy import RDTPolicy
from polydit.robopolicy.rdt.positions import CLOCKS_AND_STATE

__all__ = ["RDTConfig", "policy_from_published", "published_state", "read_rdt"]

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What DeepSpeed saves beside the weights.
_TRAINING_NAMES = ("argparse.Namespace", "deepspeed.", "numpy.", "pathlib.", "torch.Size", "torch.device")
_PUBLISHED = KeyMap(
    {
        "model.x_pos_embed": "positions",
        "model.lang_cond_pos_embed": "language_positions",
        "model.img_cond_pos_embed": "image_positions",
        "model.t_embedder.mlp.{n}.{p}": "time_embed.mlp.{n}.{p}",
        "model.freq_embedder.mlp.{n}.{p}": "frequency_embed.mlp.{n}.{p}",
        "model.blocks.{n}.norm1.weight": "blocks.{n}.norm1.weight",
        "model.blocks.{n}.norm2.weight": "blocks.{n}.norm_cross.weight",
        "model.blocks.{n}.norm3.weight": "blocks.{n}.norm2.weight",
        "model.blocks.{n}.attn.qkv.{p}": "blocks.{n}.attn.qkv.{p}",
        "model.blocks.{n}.attn.proj.{p}": "blocks.{n}.attn.out.{p}",
        "model.blocks.{n}.attn.q_norm.weight": "blocks.{n}.attn.norm_q.weight",
        "model.blocks.{n}.attn.k_norm.weight": "blocks.{n}.attn.norm_k.weight",
        "model.blocks.{n}.cross_attn.q.{p}": "blocks.{n}.cross.q.{p}",
        "model.blocks.{n}.cross_attn.kv.{p}": "blocks.{n}.cross.kv.{p}",
        "model.blocks.{n}.cross_attn.proj.{p}": "blocks.{n}.cross.out.{p}",
        "model.blocks.{n}.cross_attn.q_norm.weight": "blocks.{n}.cross.norm_q.weight",
        "model.blocks.{n}.cross_attn.k_norm.weight": "blocks.{n}.cross.norm_k.weight",
        "model.blocks.{n}.ffn.fc{m}.{p}": "blocks.{n}.mlp.fc{m}.{p}",
        "model.final_layer.norm_final.weight": "head.norm.weight",
        "model.final_layer.ffn_final.fc{m}.{p}": "head.mlp.fc{m}.{p}",
        "lang_adaptor.{n}.{p}": "language_adaptor.{n}.{p}",
        "img_adaptor.{n}.{p}": "image_adaptor.{n}.{p}",
        "state_adaptor.{n}.{p}": "state_adaptor.{n}.{p}",
    }
)
# The diffusion that `RDTPolicy` runs; a checkpoint of another one is refused by name.
_DIFFUSION = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "sample",
    "clip_sample": False,
}


@dataclass(frozen=True, slots=True)
class RDTConfig:
    """What the shapes of a published checkpoint do not tell.

    Attributes:
        image_layout: Image tokens per axis, as in `RDT`.
        num_steps: Steps of the solver.
    """

    image_layout: tuple[int, ...]
    num_steps: int = 5

    @classmethod
    def parse(cls, config: Mapping[str, Any], *, source: str = "the checkpoint") -> RDTConfig:
        """Reads ``config.json``: flat, as the hub's mixin writes it, or with the sections under ``config``.

        Raises:
            CheckpointError: A value is missing, or one that we do not support.
        """
        nested = config.get("config")
        sections = {**nested, **config} if isinstance(nested, dict) else config
        diffusion = sections.get("noise_scheduler", {})
        for key, known in _DIFFUSION.items():
            if diffusion.get(key, known) != known:
                raise CheckpointError(
                    f"noise_scheduler.{key} is {diffusion[key]!r}", where=source, expected=repr(known)
                )
        try:
            ((_, layout),) = config["img_pos_embed_config"]
            axes = (layout,) if isinstance(layout, int) else layout
            return cls(tuple(map(int, axes)), int(diffusion.get("num_inference_timesteps", 5)))
        except (KeyError, TypeError, ValueError):
            problem = "img_pos_embed_config does not tell how the image tokens lie"
            raise CheckpointError(problem, where=source, expected='[["image", [2, 3, -729]]]') from None


def read_rdt(path: Path, *, norm: str = "timm-1.0.3") -> RDTPolicy:
    """Reads a published checkpoint; the weights keep their precision.

    Args:
        path: The folder, or a weight file with ``config.json`` beside it or one folder up.
        norm: As in `RDT`.

    Raises:
        CheckpointError: A file is missing, not safe, damaged or of another kind.
    """
    file = find_weights(Path(path), _WEIGHTS, kind="RDT")
    config = RDTConfig.parse(_read_config(file), source=str(file.parent / "config.json"))
    state = read_weights(file, kind="RDT", under=("module",), inert=_TRAINING_NAMES)
    return policy_from_published(state, config, norm=norm, source=str(file))


def policy_from_published(
    state: Mapping[str, Tensor],
    config: RDTConfig,
    *,
    norm: str = "timm-1.0.3",
    source: str = "the checkpoint",
) -> RDTPolicy:
    """Builds the policy from the published runner's state dict.

    Args:
        state: Published names and shapes.
        config: The rest.
        norm: As in `RDT`.
        source: Where it comes from, for messages.

    Raises:
        CheckpointError: An entry is missing, unknown or of a shape that does not fit.
    """
    converted = _PUBLISHED.to_ours(state, source=source)
    sizes = _read_sizes(converted, source)
    try:
        with torch.device("meta"):  # neither memory nor time for start values that would be overwritten
            network = RDT(**sizes, image_layout=config.image_layout, norm=norm)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"the sizes do not fit one another: {error}", where=source) from None
    load_strict(network, {name: value.to("meta") for name, value in converted.items()}, source=source)
    dtype = converted["positions"].dtype
    network.load_state_dict({name: value.to(dtype) for name, value in converted.items()}, assign=True)
    return RDTPolicy(network.eval(), num_steps=config.num_steps)


def published_state(network: RDT) -> dict[str, Tensor]:
    """The state dict that the published code loads: the inverse of the conversion.

    Raises:
        CheckpointError: The network has parts that the published one lacks, such as an adaptor of its own for actions.
    """
    return _PUBLISHED.to_theirs(network.state_dict())


def _read_sizes(converted: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The constructor's arguments that shapes tell."""
    try:
        width = converted["positions"].shape[2]
        return {
            "horizon": converted["positions"].shape[1] - CLOCKS_AND_STATE,
            "action_dim": converted["head.mlp.fc2.bias"].shape[0],
            "width": width,
            "depth": count_blocks(converted),
            "heads": width // converted["blocks.0.attn.norm_q.weight"].shape[0],
            "language_dim": converted["language_adaptor.0.weight"].shape[1],
            "max_language_tokens": converted["language_positions"].shape[1],
            "image_dim": converted["image_adaptor.0.weight"].shape[1],
        }
    except KeyError as missing:
        raise CheckpointError(
            f"not a checkpoint of RDT: {missing.args[0]} is missing", where=source
        ) from None
    except (IndexError, ZeroDivisionError):
        raise CheckpointError(
            "not a checkpoint of RDT: an entry has another number of axes", where=source
        ) from None


def _read_config(file: Path) -> dict[str, Any]:
    """`config.json` beside the weights, or one folder up."""
    for folder in file.parent, file.parent.parent:
        path = folder / "config.json"
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                content = None
            if not isinstance(content, dict):
                raise CheckpointError("this is no config of RDT", where=str(path))
            return content
    raise CheckpointError("config.json is missing", where=str(file.parent))
