"""Published checkpoints of MoDE: which files are read, with which sizes, and what is refused by name."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from polydit.core.errors import CheckpointError
from polydit.core.testing.golden import GoldenCase
from polydit.robopolicy.mode.convert import MoDEConfig, network_from_published, read_mode
from polydit.robopolicy.mode.encoders import FiLMResNet50


@pytest.fixture
def published(root: Path) -> dict[str, Tensor]:
    """A published agent's state dict at a tiny size, without encoders."""
    case = GoldenCase.read(root / "tests/golden/cases/mode-denoiser.json")
    return {f"model.{name}": value for name, value in case.state_dict().items()}


def published_folder(folder: Path, state: dict[str, Tensor], config: dict[str, Any] | None = None) -> Path:
    save_file(
        {name: value.contiguous() for name, value in state.items()}, folder / "model_cleaned.safetensors"
    )
    if config is not None:
        (folder / "config.json").write_text(json.dumps({"model_config": config}))
    return folder


def test_a_folder_and_a_file_of_either_kind_are_read(tmp_path: Path, published: dict[str, Tensor]) -> None:
    networks = [read_mode(published_folder(tmp_path, published))]
    networks.append(read_mode(tmp_path / "model_cleaned.safetensors"))
    torch.save({"state_dict": published, "epoch": 3}, tmp_path / "last.ckpt")
    networks.append(read_mode(tmp_path / "last.ckpt"))
    assert networks[0].config.heads == 2 and networks[0].config.horizon == 4
    assert networks[0].config.num_experts == 4 and networks[0].config.hidden_ratio == 4
    for other in networks[1:]:
        for name, value in networks[0].state_dict().items():
            assert torch.equal(other.state_dict()[name], value)


def test_the_config_decides_how_many_experts(tmp_path: Path, published: dict[str, Tensor]) -> None:
    settings = {"top_k": 3, "router_normalize": False, "action_dim": "${datamodule.action_space}"}
    folder = published_folder(tmp_path, published, {"model": {"inner_model": settings}})
    network = read_mode(folder)
    assert network.config.top_k == 3 and network.config.normalize is False
    assert read_mode(folder, top_k=1).config.top_k == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("use_goal_in_routing", True), ("causal", False), ("use_shared_expert", True), ("top_k", "two")],
)
def test_networks_that_we_do_not_have_are_refused(name: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=name):
        MoDEConfig.parse({"inner_model": {name: value}})


@torch.no_grad()
@pytest.mark.parametrize(
    "names", [("static_resnet", "gripper_resnet"), ("img_encoder_image_primary", "img_encoder_image_wrist")]
)
def test_encoders_come_along(names: tuple[str, str], published: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    encoder = FiLMResNet50(2048, 10).eval()
    nn.init.normal_(encoder.film1.beta.weight, std=0.1)
    state = dict(published)
    state["model.inner_model.tok_emb.weight"] = torch.randn(16, 2048) / 50
    for index, name in enumerate(names):
        state |= {f"{name}.{key}": value + (0.01 * index if value.is_floating_point() else 0)
                  for key, value in encoder.state_dict().items()}  # fmt: skip
    state["language_goal.clip.text_projection"] = torch.zeros(2)  # not ours
    network = network_from_published(state)
    assert network.config.cameras == 2 and network.config.observation_dim == 2048
    pictures, goal = torch.rand(1, 2, 3, 32, 32), torch.randn(1, 10)
    tokens = network.observe(torch.zeros(1, 0), pictures, goal)
    assert torch.equal(tokens[:, 0], encoder(pictures[:, 0], goal))
    assert not torch.equal(tokens[:, 1], encoder(pictures[:, 1], goal))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda s: s.pop("model.inner_model.blocks.1.attn.key.bias"), "blocks.1.attn.key.bias is missing"),
        (lambda s: s.pop("model.inner_model.ln.g"), "norm.weight is missing"),
        (lambda s: s.pop("model.inner_model.pos_emb"), "positions is missing"),
        (lambda s: s.pop("model.inner_model.blocks.0.experts.expert_3.mlp.2.weight"), "3.mlp.2.weight is missing"),
        (lambda s: s.update({"model.inner_model.state_embed.weight": torch.zeros(2)}), "state_embed.weight"),
        (lambda s: s.update({"model.inner_model.blocks.0.shared_mlp.mlp.2.weight": torch.zeros(2)}), "shared_mlp"),
        (lambda s: s.update({"encoder.weight": torch.zeros(2)}), "unknown entries encoder.weight"),
        (lambda s: s.update({"model.inner_model.out.bias": torch.zeros(3)}), "out.bias has shape"),
        (lambda s: s.update({"model.inner_model.pos_emb": torch.zeros(5)}), "not a checkpoint of MoDE"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    change: Callable[[dict[str, Tensor]], Any], problem: str, published: dict[str, Tensor]
) -> None:
    change(published)
    with pytest.raises(CheckpointError, match=problem):
        network_from_published(published, source="a.pt")


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected model_cleaned\.safetensors"):
        read_mode(tmp_path)
    (tmp_path / "model_cleaned.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        read_mode(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="no config of MoDE"):
        read_mode(tmp_path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    path = tmp_path / "bad.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bad/data.pkl", pickle.dumps({"state_dict": Payload()}))
    with pytest.raises(CheckpointError, match=r"builtins\.exec"):
        read_mode(path)
    assert not (tmp_path / "ran").exists()
