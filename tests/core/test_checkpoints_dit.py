"""Published DiT and SiT files to our DiT and back, and diffusers' layout."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from diffusers import DiTTransformer2DModel

from polydit.core.errors import CheckpointError
from polydit.core.models import DiT
from polydit.core.models.convert import convert_dit, dit_from_diffusers, dit_from_published, dit_to_published

SIZES = {
    "sample_size": 8,
    "patch_size": 2,
    "in_channels": 4,
    "width": 32,
    "depth": 2,
    "heads": 4,
    "num_classes": 5,
}


@pytest.fixture
def model() -> DiT:
    torch.manual_seed(0)
    model = DiT(**SIZES).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def same(first: DiT, second: DiT) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def test_published_and_back_is_the_same(model: DiT) -> None:
    published = dit_to_published(model)
    assert published["x_embedder.proj.weight"].shape == (32, 4, 2, 2)
    assert published["blocks.1.adaLN_modulation.1.weight"].shape == (192, 32)
    assert published["pos_embed"].shape == (1, 16, 32)
    again = dit_from_published(published, heads=4)
    assert same(model, again) and dict(again.config) == {
        **dict(model.config),
        "_use_default_values": again.config["_use_default_values"],
    }


@pytest.mark.parametrize("kind", ["bare", "training"])
def test_both_kinds_of_file_are_read(kind: str, model: DiT, tmp_path: Path) -> None:
    state = dit_to_published(model)
    old = {name: torch.zeros_like(value) for name, value in state.items()}
    training = {"model": old, "ema": state, "opt": {"step": 1}, "args": argparse.Namespace(lr=1e-4)}
    path = tmp_path / "0400000.pt"
    torch.save(state if kind == "bare" else training, path)
    assert same(model, convert_dit(path, heads=4))
    if kind == "training":
        assert not convert_dit(path, heads=4, weights="model").final.linear.weight.any()


def test_sit_returns_half_of_the_channels(model: DiT, tmp_path: Path) -> None:
    torch.save(dit_to_published(model), tmp_path / "sit.pt")
    x, t, y = torch.randn(1, 4, 8, 8), torch.tensor([0.5]), torch.tensor([1])
    sit = convert_dit(tmp_path / "sit.pt", system="sit", heads=4)
    assert torch.equal(sit(x, t, y).sample, model(x, t, y).sample[:, :4])


def test_converted_weights_load_from_pretrained(model: DiT, tmp_path: Path) -> None:
    dit_from_published(dit_to_published(model), heads=4).save_pretrained(tmp_path)
    assert same(model, DiT.from_pretrained(tmp_path))


def test_heads_of_an_unpublished_width_must_be_given(model: DiT) -> None:
    with pytest.raises(CheckpointError, match="width 32 do not tell the number of heads"):
        dit_from_published(dit_to_published(model))


def test_another_kind_is_named(model: DiT, tmp_path: Path) -> None:
    state = dit_to_published(model)
    with pytest.raises(CheckpointError, match=r"u\.pt.*unknown entries encoder\.weight"):
        dit_from_published({**state, "encoder.weight": torch.ones(1)}, heads=4, source="u.pt")
    del state["blocks.1.adaLN_modulation.1.bias"]
    with pytest.raises(CheckpointError, match=r"blocks\.1\.adaLN_modulation\.1\.bias is missing"):
        dit_from_published(state, heads=4)
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of DiT"):
        convert_dit(tmp_path / "list.pt")


def test_diffusers_layout_gives_diffusers_numbers() -> None:
    torch.manual_seed(1)
    theirs = DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=5,
    ).eval()
    first = theirs.transformer_blocks[0].norm1.emb
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    for (
        block
    ) in theirs.transformer_blocks:  # diffusers trains a copy per block; a published one holds equal copies
        block.norm1.emb.load_state_dict(first.state_dict())
    ours = dit_from_diffusers(theirs.state_dict(), theirs.config)
    x, t, y = torch.randn(3, 4, 8, 8), torch.tensor([999, 500, 3]), torch.tensor([0, 4, 5])
    with torch.no_grad():
        expected = theirs(x, t, y).sample
        assert (ours(x, t, y).sample - expected).abs().max() < 1e-4  # norms of eps 1e-5 there, 1e-6 here
        shiftless = dit_from_diffusers(theirs.state_dict(), theirs.config, frequency_shift=0.0)
        assert (shiftless(x, t, y).sample - expected).abs().max() > 1e-2
