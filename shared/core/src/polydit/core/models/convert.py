"""Published weights of DiT and SiT to our :class:`~polydit.core.models.dit.DiT`, and back.

facebookresearch/DiT and willisma/SiT share one layout: a bare state dict, or a training checkpoint with the averaged
weights under ``ema``. diffusers keeps DiT in a layout of its own (:func:`dit_from_diffusers`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polydit.core.checkpoints.keys import KeyMap, count_blocks
from polydit.core.checkpoints.safe_pickle import load_pickled
from polydit.core.checkpoints.weights import load_strict
from polydit.core.errors import CheckpointError
from polydit.core.models.dit import DiT
from polydit.core.nn.embeddings import sincos_grid

__all__ = [
    "convert_dit",
    "dit_from_diffusers",
    "dit_from_published",
    "dit_to_published",
    "merge_modulation",
    "split_modulation",
]

_PUBLISHED = KeyMap(
    {
        "x_embedder.proj.{p}": "patch_embed.linear.{p}",
        "t_embedder.mlp.{n}.{p}": "time_embed.mlp.{n}.{p}",
        "y_embedder.embedding_table.weight": "label_embed.weight",
        "modulation.{p}": "modulator.linear.{p}",  # made by merge_modulation
        "blocks.{n}.attn.qkv.{p}": "blocks.{n}.attn.qkv.{p}",
        "blocks.{n}.attn.proj.{p}": "blocks.{n}.attn.out.{p}",
        "blocks.{n}.mlp.fc1.{p}": "blocks.{n}.mlp.fc1.{p}",
        "blocks.{n}.mlp.fc2.{p}": "blocks.{n}.mlp.fc2.{p}",
        "final_layer.linear.{p}": "final.linear.{p}",
    },
    dropped=["pos_embed"],
)
_DIFFUSERS = KeyMap(
    {
        "pos_embed.proj.{p}": "x_embedder.proj.{p}",
        "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1.{p}": "t_embedder.mlp.0.{p}",
        "transformer_blocks.0.norm1.emb.timestep_embedder.linear_2.{p}": "t_embedder.mlp.2.{p}",
        "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight": "y_embedder.embedding_table.weight",
        "transformer_blocks.{n}.norm1.linear.{p}": "blocks.{n}.adaLN_modulation.1.{p}",
        "transformer_blocks.{n}.attn1.to_qkv.{p}": "blocks.{n}.attn.qkv.{p}",  # made from to_q, to_k, to_v
        "transformer_blocks.{n}.attn1.to_out.0.{p}": "blocks.{n}.attn.proj.{p}",
        "transformer_blocks.{n}.ff.net.0.proj.{p}": "blocks.{n}.mlp.fc1.{p}",
        "transformer_blocks.{n}.ff.net.2.{p}": "blocks.{n}.mlp.fc2.{p}",
        "proj_out_1.{p}": "final_layer.adaLN_modulation.1.{p}",
        "proj_out_2.{p}": "final_layer.linear.{p}",
    },
    # every block holds a copy of the embedders; block 0's is read above
    dropped=[
        "transformer_blocks.{n}.norm1.emb.timestep_embedder.linear_{m}.{p}",
        "transformer_blocks.{n}.norm1.emb.class_embedder.embedding_table.weight",
        "pos_embed.pos_embed",
    ],
)
_HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # of the published S, B, L and XL
# What the training scripts of DiT and SiT save beside the weights.
_TRAINING_NAMES = ("argparse.Namespace", "pathlib.")


def convert_dit(path: Path, *, system: str = "dit", heads: int | None = None, weights: str = "ema") -> DiT:
    """Reads a ``.pt`` file of facebookresearch/DiT or SiT.

    Args:
        path: A bare state dict, or a checkpoint of ``train.py`` with ``model`` and ``ema``.
        system: ``"dit"`` or ``"sit"``: whether the network returns the learned-variance half of its channels.
        heads: Attention heads; None for the published sizes S, B, L, XL, whose width tells.
        weights: ``"ema"`` or ``"model"`` of a training checkpoint.

    Raises:
        CheckpointError: The file is not safe, damaged, or of another kind.
    """
    content = load_pickled(path, inert=_TRAINING_NAMES)
    state = content.get(weights, content) if isinstance(content, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            "not a DiT checkpoint", where=str(path), expected=f"tensors, or tensors under {weights!r}"
        )
    return dit_from_published(state, return_sigma=system == "dit", heads=heads, source=str(path))


def dit_from_published(
    state: Mapping[str, Tensor],
    *,
    return_sigma: bool = True,
    heads: int | None = None,
    frequency_shift: float = 0.0,
    sample_size: int | None = None,
    source: str = "the checkpoint",
) -> DiT:
    """Builds our DiT from a published state dict; all sizes are read from the shapes.

    Args:
        state: Published names and shapes. The fixed table ``pos_embed`` is made again and need not be there.
        return_sigma: True for DiT, False for SiT.
        heads: As in :func:`convert_dit`.
        frequency_shift: 1 if the weights were trained in diffusers' class.
        sample_size: Height and width of the latent; None reads it from ``pos_embed``.
        source: Where it comes from, for messages.

    Raises:
        CheckpointError: An entry is missing, unknown, or of a shape that does not fit.
    """
    converted = _PUBLISHED.to_ours(merge_modulation(state, source=source), source=source)
    convolution = converted.get("patch_embed.linear.weight")
    if convolution is None or convolution.ndim != 4:
        raise CheckpointError(
            "not a DiT checkpoint", where=source, expected="x_embedder.proj.weight of four axes"
        )
    converted["patch_embed.linear.weight"] = convolution.flatten(1)
    model = DiT(
        **_read_sizes(converted, convolution, source),
        sample_size=sample_size or _read_sample_size(state, convolution.shape[-1], source),
        heads=heads or _published_heads(convolution.shape[0], source),
        return_sigma=return_sigma,
        frequency_shift=frequency_shift,
    )
    load_strict(model, converted, source=source)
    return model.eval()


def dit_to_published(model: DiT) -> dict[str, Tensor]:
    """The state dict that facebookresearch/DiT and SiT load: the inverse of :func:`dit_from_published`."""
    patch, channels = model.config.patch_size, model.config.in_channels
    state = _PUBLISHED.to_theirs(model.state_dict())
    state["x_embedder.proj.weight"] = state["x_embedder.proj.weight"].unflatten(1, (channels, patch, patch))
    state["pos_embed"] = sincos_grid(model.grid, model.config.width)[None]
    return split_modulation(state, depth=model.config.depth)


def dit_from_diffusers(
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    frequency_shift: float = 1.0,
    source: str = "the checkpoint",
) -> DiT:
    """Builds our DiT from diffusers' ``DiTTransformer2DModel``.

    diffusers divides the exponents of the time frequencies by one less than the published code does. Weights that were
    trained in its class need that shift; the published weights, which the hub also holds in this layout, were trained
    without: give 0 for ``facebook/DiT-XL-2-256`` and ``-512``.

    Args:
        state: Names and shapes of diffusers' class.
        config: Its ``config.json``.
        frequency_shift: 1 for weights trained in diffusers, 0 for the published ones.
        source: Where it comes from, for messages.

    Raises:
        CheckpointError: As :func:`dit_from_published`.
    """
    return dit_from_published(
        _DIFFUSERS.to_ours(_fuse_qkv(state), source=source),
        heads=config["num_attention_heads"],
        frequency_shift=frequency_shift,
        sample_size=config["sample_size"],
        source=source,
    )


def merge_modulation(state: Mapping[str, Tensor], *, source: str = "the checkpoint") -> dict[str, Tensor]:
    """Replaces each block's and the final layer's ``adaLN_modulation.1`` by one stacked ``modulation``.

    Raises:
        CheckpointError: A block lacks its modulation.
    """
    owners = [*(f"blocks.{n}" for n in range(count_blocks(state))), "final_layer"]
    merged = dict(state)
    try:
        for part in ("weight", "bias"):
            parts = [merged.pop(f"{owner}.adaLN_modulation.1.{part}") for owner in owners]
            merged[f"modulation.{part}"] = torch.cat(parts)
    except KeyError as missing:
        raise CheckpointError(f"{missing.args[0]} is missing", where=source) from None
    return merged


def split_modulation(state: Mapping[str, Tensor], depth: int) -> dict[str, Tensor]:
    """Undoes :func:`merge_modulation`."""
    split = dict(state)
    owners = [*(f"blocks.{n}" for n in range(depth)), "final_layer"]
    for part in ("weight", "bias"):
        rows = split.pop(f"modulation.{part}")
        width = rows.shape[0] // (6 * depth + 2)
        for owner, chunk in zip(owners, rows.split([6 * width] * depth + [2 * width]), strict=True):
            split[f"{owner}.adaLN_modulation.1.{part}"] = chunk
    return split


def _read_sizes(converted: Mapping[str, Tensor], convolution: Tensor, source: str) -> dict[str, Any]:
    """The constructor's arguments that shapes tell."""
    width, channels, patch, _ = convolution.shape
    try:
        return {
            "patch_size": patch,
            "in_channels": channels,
            "width": width,
            "depth": count_blocks(converted),
            "mlp_ratio": converted["blocks.0.mlp.fc1.bias"].shape[0] / width,
            "num_classes": converted["label_embed.weight"].shape[0] - 1,
            "learn_sigma": converted["final.linear.bias"].shape[0] == 2 * channels * patch**2,
        }
    except KeyError as missing:
        raise CheckpointError(f"{missing.args[0]} is missing", where=source) from None


def _read_sample_size(state: Mapping[str, Tensor], patch: int, source: str) -> int:
    if "pos_embed" not in state:
        raise CheckpointError("pos_embed is missing", where=source)
    return math.isqrt(state["pos_embed"].shape[1]) * patch


def _published_heads(width: int, source: str) -> int:
    if width not in _HEADS:
        raise CheckpointError(
            f"weights of width {width} do not tell the number of heads", where=source, hint="Give it"
        )
    return _HEADS[width]


def _fuse_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Joins ``to_q``, ``to_k``, ``to_v`` in this order, as the published code keeps them."""
    fused = {key: value for key, value in state.items() if ".to_k." not in key and ".to_v." not in key}
    for key in [key for key in fused if ".to_q." in key]:
        parts = [fused.pop(key), *(state[key.replace(".to_q.", f".to_{part}.")] for part in "kv")]
        fused[key.replace(".to_q.", ".to_qkv.")] = torch.cat(parts)
    return fused
