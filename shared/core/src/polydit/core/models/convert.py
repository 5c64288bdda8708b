"""Published weights of DiT and SiT to our :class:`~polydit.core.models.dit.DiT`, and back.

facebookresearch/DiT and willisma/SiT share one layout: a bare state dict, or a training checkpoint with the averaged
weights under ``ema``. diffusers keeps DiT in a layout of its own (:func:`dit_from_diffusers`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polydit.core.checkpoints.keys import KeyMap, count_blocks
from polydit.core.checkpoints.published import read_weights
from polydit.core.checkpoints.weights import load_strict
from polydit.core.errors import CheckpointError
from polydit.core.models.dit import DiT

__all__ = [
    "convert_dit",
    "dit_from_diffusers",
    "dit_from_published",
    "dit_to_published",
    "merge_modulation",
    "published_heads",
    "read_published",
    "split_modulation",
    "transfer_blocks",
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
    state = read_weights(path, kind="DiT", under=(weights,), inert=_TRAINING_NAMES)
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
    converted, sizes = read_published(state, source=source, sample_size=sample_size)
    model = DiT(
        **sizes,
        heads=heads or published_heads(sizes["width"], source),
        return_sigma=return_sigma,
        frequency_shift=frequency_shift,
    )
    load_strict(model, converted, source=source)
    return model.eval()


def read_published(
    state: Mapping[str, Tensor], *, source: str = "the checkpoint", sample_size: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights in our layout, and the constructor's arguments that their shapes tell, for images and for volumes.

    Args:
        state: Published names and shapes.
        source: Where it comes from, for messages.
        sample_size: Cells per axis; None reads it from ``pos_embed``.

    Raises:
        CheckpointError: As :func:`dit_from_published`.
    """
    converted = _PUBLISHED.to_ours(merge_modulation(state, source=source), source=source)
    convolution = converted.get("patch_embed.linear.weight")
    if convolution is None or convolution.ndim not in (4, 5):
        raise CheckpointError(
            "not a DiT checkpoint", where=source, expected="x_embedder.proj.weight of four or five axes"
        )
    converted["patch_embed.linear.weight"] = convolution.flatten(1)
    sizes = _read_sizes(converted, convolution, source)
    axes = convolution.ndim - 2
    cells = sample_size or _read_sample_size(state, convolution.shape[-1], axes, source)
    return converted, {**sizes, "sample_size": cells if axes == 2 else (cells,) * axes}


def dit_to_published(model: DiT) -> dict[str, Tensor]:
    """The state dict that facebookresearch/DiT and SiT load: the inverse of :func:`dit_from_published`."""
    state = _PUBLISHED.to_theirs(model.state_dict())
    kernel = (model.config.in_channels, *model.patch)
    state["x_embedder.proj.weight"] = state["x_embedder.proj.weight"].unflatten(1, kernel)
    state["pos_embed"] = model.positions[None].clone()
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


def transfer_blocks(target: DiT, source: DiT) -> None:
    """Start `target` from the blocks of `source`, their modulation included; embedders and final layer stay.

    What DiT-3D does with the weights of DiT-XL/2 (Mo et al. 2023, section 3.4): a block does not know how many axes the
    grid has, nor how large its patches are.

    Raises:
        CheckpointError: The blocks are not of one size.
    """
    shared = ("width", "depth", "heads", "mlp_ratio", "modulation")
    other = {k: (source.config[k], target.config[k]) for k in shared if source.config[k] != target.config[k]}
    if other:
        named = ", ".join(f"{key} {mine} into {theirs}" for key, (mine, theirs) in other.items())
        raise CheckpointError(f"blocks of another size cannot be transferred: {named}")
    target.blocks.load_state_dict(source.blocks.state_dict())
    rows = 6 * source.config.depth * source.config.width
    for name, value in source.modulator.state_dict().items():
        mine = target.modulator.get_parameter(name)
        if name != "final":  # the head's own
            mine.data[:rows] = value[:rows]


def _read_sizes(converted: Mapping[str, Tensor], convolution: Tensor, source: str) -> dict[str, Any]:
    """The constructor's arguments that shapes tell."""
    width, channels, patch, axes = *convolution.shape[:3], convolution.ndim - 2
    try:
        return {
            "patch_size": patch,
            "in_channels": channels,
            "width": width,
            "depth": count_blocks(converted),
            "mlp_ratio": converted["blocks.0.mlp.fc1.bias"].shape[0] / width,
            "num_classes": converted["label_embed.weight"].shape[0] - 1,
            "learn_sigma": converted["final.linear.bias"].shape[0] == 2 * channels * patch**axes,
        }
    except KeyError as missing:
        raise CheckpointError(f"{missing.args[0]} is missing", where=source) from None


def _read_sample_size(state: Mapping[str, Tensor], patch: int, axes: int, source: str) -> int:
    if "pos_embed" not in state:
        raise CheckpointError("pos_embed is missing", where=source)
    tokens = state["pos_embed"].shape[1]
    side = round(tokens ** (1 / axes))
    if side**axes != tokens:
        raise CheckpointError(
            f"pos_embed has {tokens} tokens", where=source, expected=f"a grid of {axes} equal sides"
        )
    return side * patch


def published_heads(width: int, source: str) -> int:
    """Attention heads of the published size that has this width.

    Raises:
        CheckpointError: There is none.
    """
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
