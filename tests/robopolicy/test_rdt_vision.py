"""SigLIP as RDT sees with it, against transformers' own preparation and network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from polydit.core.errors import CheckpointError
from polydit.robopolicy.batch import PolicyBatch
from polydit.robopolicy.rdt.conditions import BACKGROUND
from polydit.robopolicy.rdt.network import RDT
from polydit.robopolicy.rdt.policy import RDTPolicy
from polydit.robopolicy.rdt.vision import SigLIP


@pytest.fixture
def siglip(tmp_path: Path) -> Path:
    """A folder with a tiny SigLIP."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    transformers.SiglipVisionModel(config).save_pretrained(tmp_path / "siglip")
    return tmp_path / "siglip"


def test_a_policy_sees_through_siglip(siglip: Path) -> None:
    encoder = SigLIP.from_folder(siglip)
    model = RDT(
        horizon=4,
        action_dim=3,
        state_dim=5,
        width=32,
        depth=2,
        heads=4,
        language_dim=8,
        max_language_tokens=6,
        image_layout=(2, -4),
        image_dim=16,
    ).eval()
    torch.nn.init.normal_(model.head.mlp.fc2.weight)  # an untrained network predicts zero
    policy, noise = RDTPolicy(model, encoder=encoder), torch.randn(2, 4, 3)
    given = PolicyBatch(
        state=torch.randn(2, 5),
        language=torch.randn(2, 3, 8),
        language_mask=torch.ones(2, 3) > 0,
        control_frequency=torch.full((2,), 25.0),
        images=torch.rand(2, 2, 3, 16, 16),
    )
    tokens = encoder(given.images)
    expected = encoder.model(2.0 * given.images[:, 1] - 1.0).last_hidden_state
    torch.testing.assert_close(tokens[:, 4:], expected, atol=1e-5, rtol=1e-4)
    direct = policy.solve(replace(policy.observe(given), images=tokens), noise)
    assert torch.equal(policy.sample(given, noise), direct)
    trained = replace(given, actions=noise)
    policy.loss(trained, torch.Generator().manual_seed(0))["loss"].backward()
    assert all(parameter.grad is None for parameter in encoder.model.parameters())
    with pytest.raises(ValueError, match="needs an encoder"):
        RDTPolicy(model).sample(given, noise)


def test_pictures_are_prepared_as_transformers_does(siglip: Path) -> None:
    transformers = pytest.importorskip("transformers")
    picture = np.zeros((40, 40, 3), dtype=np.uint8)
    picture[10:30, 5:25] = (200, 100, 50)
    processor = transformers.SiglipImageProcessorPil(size={"height": 16, "width": 16})
    theirs = torch.as_tensor(processor(picture, return_tensors="pt")["pixel_values"])
    ours = SigLIP.from_folder(siglip)._squares(torch.from_numpy(picture).permute(2, 0, 1)[None] / 255)
    torch.testing.assert_close(2.0 * ours - 1.0, theirs, atol=0.02, rtol=0.0)
    wide = SigLIP.from_folder(siglip)._squares(torch.ones(1, 3, 8, 16))
    assert torch.allclose(wide[:, :, [0, -1]], torch.tensor(BACKGROUND))
    assert torch.equal(wide[:, :, 4:12], torch.ones(1, 3, 8, 16))


def test_a_folder_without_siglip_is_refused(siglip: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no SigLIP"):
        SigLIP.from_folder(siglip / "nothing")
    weights = siglip / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="cannot be read"):
        SigLIP.from_folder(siglip)
