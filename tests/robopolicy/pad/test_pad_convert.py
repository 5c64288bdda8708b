"""Published files of PAD: read with their sizes, refused by name; and the start from DiT's weights."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from polydit.core.errors import CheckpointError
from polydit.core.models.dit import DiT
from polydit.core.nn.embeddings import sincos_grid
from polydit.robopolicy.pad.convert import init_from_dit, read_pad
from polydit.robopolicy.pad.network import Modalities, PADTransformer

NetworkOf = Callable[..., PADTransformer]
PartsOf = Callable[..., tuple[Modalities, Modalities]]


def published(width: int = 48) -> dict[str, Tensor]:
    """A state dict of the published program: 2 blocks, frames and depth maps, learned positions of 3 actions."""
    generator = torch.Generator().manual_seed(0)

    def layer(name: str, *shape: int) -> dict[str, Tensor]:
        return {
            f"{name}.weight": 0.1 * torch.randn(*shape, generator=generator),
            f"{name}.bias": 0.1 * torch.randn(shape[0], generator=generator),
        }

    state: dict[str, Tensor] = {
        "a_pos_embed": torch.randn(1, 3, width, generator=generator),
        "d_pos_embed": sincos_grid((4, 4), width).unflatten(0, (4, 4))[::2, ::2].reshape(1, 4, width),
        "pos_embed": sincos_grid((4, 4), width)[None],
        **layer("x_embedder.proj", width, 12, 2, 2),
        **layer("t_embedder.mlp.0", width, 256),
        **layer("t_embedder.mlp.2", width, width),
        **layer("a_embedder", width, 7),
        **layer("d_embedder.proj", width, 3, 4, 4),
        **layer("y_embedder.embedding_table", width, 512),
    }
    for n in range(2):
        state |= layer(f"blocks.{n}.attn.qkv", 3 * width, width) | layer(
            f"blocks.{n}.attn.proj", width, width
        )
        state |= layer(f"blocks.{n}.mlp.fc1", 4 * width, width) | layer(
            f"blocks.{n}.mlp.fc2", width, 4 * width
        )
        state |= layer(f"blocks.{n}.adaLN_modulation.1", 6 * width, width)
    outputs = {"": 2 * 2 * 4 * 2 * 2, "a_": 2 * 7, "d_": 4 * 4 * 2 * 2}
    for head, channels in outputs.items():
        state |= layer(f"final_layer.{head}linear", channels, width)
        state |= layer(f"final_layer.{head}adaLN_modulation.1", 2 * width, width)
    return state


def saved(folder: Path, state: Mapping[str, Tensor], **arguments: Any) -> Path:
    """As the published programs save it."""
    path = folder / "0030000.pt"
    torch.save({"model": dict(state), "args": argparse.Namespace(**arguments)}, path)
    return path


def test_published_file_is_read_with_its_sizes(tmp_path: Path) -> None:
    state = published()
    model = read_pad(saved(tmp_path, state, model="DiT-S/2", attn_mask=True, lr=1e-4))
    sizes = {
        "sample_size": 8, "patch_size": 2, "in_channels": 4, "future_frames": 2, "horizon": 3, "action_dim": 7,
        "state_dim": 0, "text_dim": 512, "width": 48, "depth": 2, "heads": 6,
    }  # fmt: skip
    assert {name: model.config[name] for name in sizes} == sizes
    assert (model.config.depth_map_size, model.config.depth_map_patch) == (8, 4)
    assert (model.config.action_tokens, model.config.learned_positions, model.config.frames_see_all) == (
        3,
        True,
        False,
    )
    assert torch.equal(model.state_dict()["actions.positions"], state["a_pos_embed"][0])
    assert model.names == ("images", "actions", "depth_maps")
    assert read_pad(saved(tmp_path, state, attn_mask=False), heads=4).config.frames_see_all
    alone = {
        k: v for k, v in state.items() if not k.startswith(("a_", "d_", "final_layer.a_", "final_layer.d_"))
    }
    assert read_pad(saved(tmp_path, alone, attn_mask=True), heads=4).names == ("images",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.weight": torch.ones(1)}, r"unknown entries encoder\.weight"),
        ({"a_embedder.bias": None}, r"actions\.linear\.bias is missing"),
        ({"pos_embed": None}, "pos_embed"),
        ({"blocks.1.adaLN_modulation.1.bias": None}, r"blocks\.1\.adaLN_modulation\.1\.bias is missing"),
        ({"blocks.0.attn.qkv.bias": torch.ones(3)}, r"blocks\.0\.attn\.qkv\.bias has shape \(3,\)"),
        ({"x_embedder.proj.weight": torch.ones(48, 8, 2, 2)}, "8 channels in and 8 out are no future frames"),
    ],
)
def test_a_published_file_that_does_not_fit_is_named(
    change: dict[str, Tensor | None], message: str, tmp_path: Path
) -> None:
    state = {k: v for k, v in {**published(), **change}.items() if v is not None}
    with pytest.raises(CheckpointError, match=message):
        read_pad(saved(tmp_path, state, model="DiT-S/2", attn_mask=True))


def test_arguments_that_tell_too_little_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="do not tell attn_mask"):
        read_pad(saved(tmp_path, published(), model="DiT-S/2"))
    with pytest.raises(CheckpointError, match="do not tell the number of heads"):
        read_pad(saved(tmp_path, published(), model="Other", attn_mask=True))
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of PAD"):
        read_pad(tmp_path / "other.pt")


class Harmful:
    """What runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 1",)


def test_a_file_with_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="system"):
        read_pad(saved(tmp_path, published(), model="DiT-S/2", attn_mask=True, extra=Harmful()))


# ---------------------------------------------------------------------------------------------------------
# The start from DiT


def dit(**changes: Any) -> DiT:
    """A DiT of the small network's size."""
    sizes = {
        "sample_size": 4,
        "patch_size": 4,
        "in_channels": 3,
        "width": 32,
        "depth": 2,
        "heads": 4,
        "num_classes": 3,
    }
    torch.manual_seed(1)
    model = DiT(**{**sizes, **changes}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_from_dit_every_frame_is_denoised_as_dit_does_without_a_label(
    network: NetworkOf, part: PartsOf
) -> None:
    """One picture in one slot comes out of every frame's head as DiT's prediction and variance, channel by channel."""
    teacher, model = dit(sample_size=16), network()
    init_from_dit(model, teacher)
    torch.nn.init.zeros_(teacher.label_embed.weight)
    picture = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    (noisy, now), times = part(depth_maps=False), torch.tensor([10, 900])
    for slot in range(2):
        frames = torch.zeros(2, 2, 3, 16, 16)
        frames[:, slot] = picture
        with torch.no_grad():
            expected = teacher(picture, times, torch.zeros(2, dtype=torch.long)).sample.chunk(2, dim=1)
            made = model(replace(noisy, images=frames), now, times, torch.linspace(-1, 1, 10).reshape(2, 5))
        for ours, theirs in zip(made, expected, strict=True):
            for frame in range(2):
                torch.testing.assert_close(ours["images"][:, frame], theirs, atol=1e-5, rtol=1e-5)


def test_a_dit_of_another_size_is_named(network: NetworkOf) -> None:
    with pytest.raises(CheckpointError, match=r"does not fit: width 64.*expected .*width 32"):
        init_from_dit(network(), dit(width=64))
    with pytest.raises(CheckpointError, match="learn_sigma False"):
        init_from_dit(network(), dit(learn_sigma=False))
