"""Published weights of DiT-3D to our `PointDiT` and back, and images' weights as a start for clouds.

The published training saves ``model_state`` with keys ``model.module.<key>`` and, on request, ``ema`` with
``model.<key>``; neither the mean and scale of its data nor its schedule, which a checkpoint is of no use without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from polydit.core.checkpoints.published import read_weights
from polydit.core.checkpoints.weights import load_strict
from polydit.core.errors import CheckpointError
from polydit.core.models.convert import dit_to_published, published_heads, read_published
from polydit.pointgen.model import PointDiT

__all__ = ["convert_point_dit", "point_dit_from_published", "point_dit_to_published"]

_PREFIXES = ("model.", "module.")


def convert_point_dit(
    path: Path, *, heads: int | None = None, weights: Literal["model_state", "ema"] = "model_state"
) -> PointDiT:
    """Read a ``.pth`` file of DiT-3D.

    Args:
        path: A checkpoint of its ``train.py``, or a bare state dict.
        heads: Attention heads; None for the published sizes, whose width tells.
        weights: Which weights of a training checkpoint. Published sampling uses "model_state", never "ema".

    Raises:
        CheckpointError: The file is not safe, damaged, or of another kind.
    """
    state = read_weights(path, kind="DiT-3D", under=(weights,))
    return point_dit_from_published(_without_prefixes(state), heads=heads, source=str(path))


def point_dit_from_published(
    state: Mapping[str, Tensor],
    *,
    heads: int | None = None,
    window: int = 0,
    window_blocks: Sequence[int] = (),
    voxels: int | None = None,
    source: str = "the checkpoint",
) -> PointDiT:
    """Build our network from a published state dict; its sizes are read from the shapes.

    Args:
        state: Published names and shapes.
        heads: As in `convert_point_dit`.
        window: Real windows of so many tokens per axis. Leave 0 for published checkpoints of the window model: as
            published their attention was global, whatever the flags said.
        window_blocks: The blocks that have them.
        voxels: Cells per axis; None reads it from ``pos_embed``.
        source: Where it comes from, for messages.

    Raises:
        CheckpointError: An entry is missing, unknown, or of a shape that does not fit.
    """
    converted, sizes = read_published(state, source=source, sample_size=voxels)
    if isinstance(sizes["sample_size"], int):
        raise CheckpointError("weights of a network for images", where=source, expected="those of DiT-3D")
    model = PointDiT(
        voxels=sizes["sample_size"][0],
        patch_size=sizes["patch_size"],
        width=sizes["width"],
        depth=sizes["depth"],
        heads=heads or published_heads(sizes["width"], source),
        mlp_ratio=sizes["mlp_ratio"],
        num_classes=sizes["num_classes"],
        window=window,
        window_blocks=tuple(window_blocks),
    )
    load_strict(model.dit, converted, source=source)
    return model.eval()


def point_dit_to_published(model: PointDiT) -> dict[str, Tensor]:
    """The state dict that the published class loads: the inverse of `point_dit_from_published`."""
    return dit_to_published(model.dit)


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys without what DistributedDataParallel and the published wrapper put before them."""
    bare = dict(state)
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in bare):
            bare = {key.removeprefix(prefix): value for key, value in bare.items()}
    return bare
