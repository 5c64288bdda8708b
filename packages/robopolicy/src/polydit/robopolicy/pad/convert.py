"""PAD's published checkpoints to ours, and its start from a class-conditional DiT.

The published programs save ``{"model": state dict, "args": Namespace}`` by ``torch.save``. The namespace is read as
plain data, for the two things that shapes do not tell: who sees whom, and the number of heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polydit.core.checkpoints.keys import KeyMap, count_blocks
from polydit.core.checkpoints.safe_pickle import Stub, load_pickled
from polydit.core.checkpoints.weights import load_strict
from polydit.core.errors import CheckpointError
from polydit.core.models.convert import merge_modulation
from polydit.core.models.dit import DiT
from polydit.core.nn.embeddings import sincos_grid
from polydit.robopolicy.pad.network import PADTransformer

__all__ = ["init_from_dit", "pad_from_published", "read_pad"]

_PUBLISHED = KeyMap(
    {
        "x_embedder.proj.{p}": "patch_embed.linear.{p}",
        "t_embedder.mlp.{n}.{p}": "time_embed.mlp.{n}.{p}",
        "y_embedder.embedding_table.{p}": "text_embed.{p}",
        "modulation.{p}": "modulator.linear.{p}",  # made by merge_modulation
        "blocks.{n}.attn.qkv.{p}": "blocks.{n}.attn.qkv.{p}",
        "blocks.{n}.attn.proj.{p}": "blocks.{n}.attn.out.{p}",
        "blocks.{n}.mlp.fc1.{p}": "blocks.{n}.mlp.fc1.{p}",
        "blocks.{n}.mlp.fc2.{p}": "blocks.{n}.mlp.fc2.{p}",
        "final_layer.linear.{p}": "final.linear.{p}",
        "a_embedder.{p}": "actions.linear.{p}",
        "final_layer.a_adaLN_modulation.1.{p}": "actions.modulation.{p}",
        "final_layer.a_linear.{p}": "actions.final.linear.{p}",
        "d_embedder.proj.{p}": "depth_maps.patch_embed.linear.{p}",
        "final_layer.d_adaLN_modulation.1.{p}": "depth_maps.modulation.{p}",
        "final_layer.d_linear.{p}": "depth_maps.final.linear.{p}",
    },
    dropped=[
        "pos_embed",
        "a_pos_embed",
        "d_pos_embed",
    ],  # fixed tables; learned positions of actions are kept below
)
_CONVOLUTIONS = ("patch_embed.linear.weight", "depth_maps.patch_embed.linear.weight")
_HEADS = {"DiT-S": 6, "DiT-B": 12, "DiT-L": 16, "DiT-XL": 16}  # by the model's name in the arguments


def read_pad(path: Path, *, heads: int | None = None) -> PADTransformer:
    """Reads a published checkpoint.

    It has the network alone. The autoencoder of its pictures (``sd-vae-ft-mse``) and CLIP's text encoder are apart.

    Args:
        path: The ``.pt`` file.
        heads: Attention heads; None for the published sizes, whose name the file tells.

    Raises:
        CheckpointError: The file is not safe, damaged or of another kind.
    """
    source = str(path)
    content = load_pickled(path, inert=("argparse.Namespace",))
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            "not a checkpoint of PAD", where=source, expected="a dictionary with tensors under 'model'"
        )
    arguments = content.get("args")
    settings = arguments.state if isinstance(arguments, Stub) else arguments
    return pad_from_published(
        state, settings=settings if isinstance(settings, dict) else {}, heads=heads, source=source
    )


def pad_from_published(
    state: Mapping[str, Tensor],
    *,
    settings: Mapping[str, Any],
    heads: int | None = None,
    source: str = "the checkpoint",
) -> PADTransformer:
    """Builds the network from the published state dict; sizes are read from the shapes.

    Args:
        state: Published names and shapes, the position tables among them.
        settings: The published arguments: ``attn_mask``, and ``model`` for the heads.
        heads: As in `read_pad`.
        source: Where it comes from, for messages.

    Raises:
        CheckpointError: An entry is missing, unknown or of a shape that does not fit, or the settings lack something.
    """
    converted = _PUBLISHED.to_ours(merge_modulation(state, source=source), source=source)
    masked = settings.get("attn_mask")
    if not isinstance(masked, bool):
        raise CheckpointError("the arguments do not tell attn_mask", where=source, expected="true or false")
    try:
        sizes = {**_image_sizes(converted, state), **_action_sizes(converted, state)}
        sizes |= _depth_map_sizes(converted, state)
        learned = _learned_positions(state, sizes["width"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"not a checkpoint of PAD ({error})", where=source) from None
    for name in _CONVOLUTIONS:
        if name in converted:
            converted[name] = converted[name].flatten(1)
    if learned is not None:
        converted["actions.positions"] = learned
    model = PADTransformer(
        **sizes,
        heads=heads or _published_heads(settings, source),
        frames_see_all=not masked,
        learned_positions=learned is not None,
    )
    load_strict(model, converted, source=source)
    return model.eval()


def init_from_dit(model: PADTransformer, dit: DiT) -> None:
    """Starts PAD from a class-conditional DiT of the same size, in place.

    The patch embedding is copied into the slot of each noised frame and is zero in the slot of the present one; the
    text embedding is zero, so at first every frame is denoised like a picture without a label; the final layer is
    copied for each frame. There the published code copies whole blocks of rows, (patch, prediction | variance, channel)
    per frame, into a layer whose rows are read as (patch, prediction | variance, frame, channel), so that most rows
    serve another channel than before; here each row goes where its meaning is. Actions and depth maps start fresh.

    Args:
        model: Receives the weights.
        dit: Weights of DiT, with the learned variance.

    Raises:
        CheckpointError: If the sizes differ.
    """
    wanted = {name: model.config[name] for name in _SHARED} | _AS_PUBLISHED
    wrong = [f"{name} {dit.config[name]}" for name, value in wanted.items() if dit.config[name] != value]
    if wrong:
        expected = ", ".join(f"{name} {value}" for name, value in wanted.items())
        raise CheckpointError(f"this DiT does not fit: {', '.join(wrong)}", expected=expected)
    frames, channels = model.config.future_frames, model.config.in_channels
    for name in ("time_embed", "modulator", "blocks"):
        getattr(model, name).load_state_dict(getattr(dit, name).state_dict())
    with torch.no_grad():
        slot = dit.patch_embed.linear.weight
        model.patch_embed.linear.weight.copy_(torch.cat([slot] * frames + [torch.zeros_like(slot)], dim=1))
        model.patch_embed.linear.bias.copy_(dit.patch_embed.linear.bias)
        model.text_embed.weight.zero_()
        model.text_embed.bias.zero_()
        for name in ("weight", "bias"):
            rows = getattr(dit.final.linear, name).unflatten(0, (-1, 2, 1, channels))
            for_all = rows.expand(-1, -1, frames, *(-1,) * (rows.ndim - 3)).flatten(0, 3)
            getattr(model.final.linear, name).copy_(for_all)


_SHARED = ("patch_size", "in_channels", "width", "depth", "heads", "mlp_ratio")
_AS_PUBLISHED = {"learn_sigma": True, "modulation": "adaln", "frequency_shift": 0.0}


def _image_sizes(converted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Any]:
    width, stacked, patch, _ = converted["patch_embed.linear.weight"].shape
    noised = len(converted["final.linear.bias"]) // (2 * patch**2)  # channels of all future frames
    channels = stacked - noised
    if channels < 1 or noised % channels:
        raise ValueError(f"{stacked} channels in and {noised} out are no future frames and a present one")
    return {
        "sample_size": math.isqrt(state["pos_embed"].shape[1]) * patch,
        "patch_size": patch,
        "in_channels": channels,
        "future_frames": noised // channels,
        "text_dim": converted["text_embed.weight"].shape[1],
        "width": width,
        "depth": count_blocks(converted),
        "mlp_ratio": len(converted["blocks.0.mlp.fc1.bias"]) / width,
    }


def _action_sizes(converted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Any]:
    if "actions.linear.weight" not in converted:
        return {"horizon": 0, "state_dim": 0}
    packed, tokens = len(converted["actions.final.linear.bias"]) // 2, state["a_pos_embed"].shape[1]
    state_dim = converted["actions.linear.weight"].shape[1] - packed
    # published: with the pose as condition, a chunk of poses in one token; without it, a token per action
    action_dim = state_dim or packed
    return {
        "horizon": tokens * packed // action_dim,
        "action_dim": action_dim,
        "state_dim": state_dim,
        "action_tokens": tokens,
    }


def _depth_map_sizes(converted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Any]:
    if "depth_maps.patch_embed.linear.weight" not in converted:
        return {}
    patch = converted["depth_maps.patch_embed.linear.weight"].shape[-1]
    return {
        "depth_map_size": math.isqrt(state["d_pos_embed"].shape[1]) * patch,
        "depth_map_patch": patch,
    }


def _learned_positions(state: Mapping[str, Tensor], width: int) -> Tensor | None:
    """The positions of the action tokens, unless they are the fixed table."""
    if "a_pos_embed" not in state:
        return None
    positions = state["a_pos_embed"][0]
    fixed = sincos_grid((len(positions),), width)
    return None if torch.allclose(positions.float(), fixed, atol=1e-5) else positions


def _published_heads(settings: Mapping[str, Any], source: str) -> int:
    heads = _HEADS.get(str(settings.get("model")).partition("/")[0])
    if heads is None:
        raise CheckpointError(
            "the arguments do not tell the number of heads", where=source, hint="Give it with --num-heads"
        )
    return heads
