"""Published checkpoints of RDT: the forms in which they come, the precision that they keep, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from polydit.core.errors import CheckpointError
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.rdt.convert import RDTConfig, policy_from_published, published_state, read_rdt
from polydit.robopolicy.rdt.network import RDT

NetworkOf = Callable[..., RDT]
BatchOf = Callable[..., PolicyBatch]
NoiseOf = Callable[..., Tensor]

LAYOUT = (2, 3, -2)
DIFFUSION = {
    "type": "ddpm",
    "num_train_timesteps": 1000,
    "num_inference_timesteps": 3,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "sample",
    "clip_sample": False,
}


@pytest.fixture
def published(network: NetworkOf) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and config of a tiny policy in the published layout."""
    model = network(
        state_dim=None, action_dim=12, image_encoder="precomputed", image_layout=LAYOUT, image_dim=10
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    sections = {"rdt": {"hidden_size": 32, "depth": 3, "num_heads": 4}, "noise_scheduler": DIFFUSION}
    flat = {"img_pos_embed_config": [["image", list(LAYOUT)]], "pred_horizon": 4, **sections}
    return published_state(model), flat


def write(folder: Path, state: Any, config: Any, name: str = "pytorch_model.bin") -> Path:
    folder.mkdir(exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / name) if name.endswith((".bin", ".pt")) else save_file(state, folder / name)
    return folder


def test_all_forms_of_a_published_checkpoint_are_read(
    batch: BatchOf, noise: NoiseOf, published: Any, tmp_path: Path
) -> None:
    state, flat = published
    nested = {
        "img_pos_embed_config": flat["img_pos_embed_config"],
        "config": {key: value for key, value in flat.items() if key != "img_pos_embed_config"},
    }
    deepspeed = {"module": state, "ds_config": {"zero": 2}, "global_steps": 3}
    forms = [
        write(tmp_path / "flat", state, flat),
        write(tmp_path / "nested", state, nested),
        write(tmp_path / "safetensors", state, flat, "model.safetensors"),
        write(tmp_path / "deepspeed", deepspeed, flat, "mp_rank_00_model_states.pt")
        / "mp_rank_00_model_states.pt",
    ]
    for path in forms:
        policy = read_rdt(path)
        assert policy.num_steps == 3
        got = published_state(policy.network)
        assert got.keys() == state.keys()
        assert all(torch.equal(got[name], state[name]) for name in state)
    with torch.no_grad():
        given = replace(policy.observe(batch(state=12)), images=torch.randn(2, 12, 10))
        assert policy.solve(given, noise(actions=12)).isfinite().all()


def test_a_converted_checkpoint_keeps_its_precision(batch: BatchOf, noise: NoiseOf, published: Any) -> None:
    state, flat = published
    half = {name: value.bfloat16() for name, value in state.items()}
    policy = policy_from_published(half, RDTConfig.parse(flat))
    assert {parameter.dtype for parameter in policy.network.parameters()} == {torch.bfloat16}
    given = replace(policy.observe(batch(state=12)), images=torch.randn(2, 12, 10))
    exact = policy_from_published(state, RDTConfig.parse(flat)).solve(given, noise(actions=12))
    rough = policy.solve(given, noise(actions=12))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.1)


def test_the_other_norm_is_another_network(batch: BatchOf, noise: NoiseOf, published: Any) -> None:
    state, flat = published
    config = RDTConfig.parse(flat)
    policies = [policy_from_published(state, config, norm=norm) for norm in ("timm-1.0.3", "rms")]
    given = replace(policies[0].observe(batch(state=12)), images=torch.randn(2, 12, 10))
    first, second = (policy.solve(given, noise(actions=12)) for policy in policies)
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.x_pos_embed"), "positions is missing"),
        (lambda s: s.pop("model.blocks.1.norm2.weight"), "blocks.1.norm_cross.weight is missing"),
        (lambda s: s.update({"model.extra": torch.zeros(1)}), "unknown entries model.extra"),
        (lambda s: s.update({"lang_adaptor.0.weight": torch.zeros(32)}), "another number of axes"),
        (
            lambda s: s.update({"model.img_cond_pos_embed": torch.zeros(1, 9, 32)}),
            "image_positions has shape",
        ),
        # a network of this width would need terabytes
        (lambda s: s.update({"model.x_pos_embed": torch.zeros(1, 7, 1 << 20)}), "has shape"),
        (lambda s: s.update({"model.x_pos_embed": torch.zeros(1, 7, 30)}), "do not fit one another"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Any, message: str, published: Any) -> None:
    state, flat = published
    change(state)
    with pytest.raises(CheckpointError, match=message):
        policy_from_published(state, RDTConfig.parse(flat))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise_scheduler": {"prediction_type": "epsilon"}}, "prediction_type is 'epsilon'"),
        ({"noise_scheduler": {"beta_schedule": "linear"}}, "beta_schedule is 'linear'"),
        ({"img_pos_embed_config": None}, "how the image tokens lie"),
        ({"img_pos_embed_config": [["image", ["a"]]]}, "how the image tokens lie"),
    ],
)
def test_a_config_that_we_do_not_know_is_refused(change: Any, message: str, published: Any) -> None:
    with pytest.raises(CheckpointError, match=message):
        RDTConfig.parse({**published[1], **change})


class Code:
    """A pickle of this would run a function when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("loaded",)


def test_files_that_are_no_checkpoint_are_refused(published: Any, tmp_path: Path) -> None:
    state, flat = published
    refused = {
        "names builtins.print": write(tmp_path / "code", {**state, "lang_adaptor.0.bias": Code()}, flat),
        "not a checkpoint of RDT": write(tmp_path / "numbers", {"step": 3}, flat),
        "config.json is missing": write(tmp_path / "bare", state, None),
        "no config of RDT": write(tmp_path / "list", state, [1]),
    }
    damaged = write(tmp_path / "damaged", state, flat, "model.safetensors")
    content = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(content[:-100])
    refused["the file is damaged"] = damaged
    (tmp_path / "empty").mkdir()
    refused["no weights of RDT"] = tmp_path / "empty"
    for message, path in refused.items():
        with pytest.raises(CheckpointError, match=message):
            read_rdt(path)
