"""The networks of molgen: preconditioning, low precision, modulation given from outside."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from polydit.core.objectives import LinearPath
from polydit.molgen.model import LatentDiT


def network(**changes: object) -> LatentDiT:
    torch.manual_seed(0)
    model = LatentDiT(latent_channels=4, width=32, depth=2, heads=2, **changes).eval()  # type: ignore[arg-type]
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(3, 5, 4, generator=generator),
        "timestep": torch.tensor([0.2, 0.9, 1.0]),
        "kind": torch.tensor([1, 2, 0]),
        "spacegroup": torch.tensor([225, 0, 0]),
        "mask": torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [True] * 5]),
    }


def test_preconditioning_returns_its_input_at_the_end_of_the_path(inputs: dict[str, torch.Tensor]) -> None:
    out = network(preconditioned=True)(**inputs)
    torch.testing.assert_close(out[2], inputs["hidden_states"][2])
    assert (out[1, 3:] == 0).all()


def test_preconditioning_is_the_best_linear_guess_plus_a_scaled_output() -> None:
    """c_skip · x is the least-squares estimate of unit-variance data from x_t, and c_out the size of its error."""
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(1, 400_000, generator=generator), torch.randn(1, 400_000, generator=generator)
    for t in (torch.tensor([0.3]), torch.tensor([0.8])):
        x = LinearPath.interpolate(noise, data, t)
        guess = LinearPath.precondition(x, torch.zeros_like(x), t)
        torch.testing.assert_close(guess, x * (x * data).mean() / x.square().mean(), atol=0.03, rtol=0.0)
        size = LinearPath.precondition(torch.zeros_like(x), torch.ones_like(x), t)[0, 0]
        assert (data - guess).std().item() == pytest.approx(size.item(), rel=0.01)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_modulation_given_from_outside_is_that_of_the_labels(
    inputs: dict[str, torch.Tensor], preconditioned: bool
) -> None:
    model = network(preconditioned=preconditioned)
    table = model.modulate(inputs["timestep"], inputs["kind"], inputs["spacegroup"])
    given = model(inputs["hidden_states"], timestep=inputs["timestep"], mask=inputs["mask"], modulation=table)
    torch.testing.assert_close(given, model(**inputs))
    with pytest.raises(ValueError, match="needs timestep"):
        network(preconditioned=True)(inputs["hidden_states"])


@pytest.mark.parametrize("preconditioned", [False, True])
def test_bf16_weights_agree_with_float32(inputs: dict[str, torch.Tensor], preconditioned: bool) -> None:
    exact = network(preconditioned=preconditioned)
    rough = nn.Module.to(network(preconditioned=preconditioned), torch.bfloat16)
    torch.testing.assert_close(rough(**inputs).float(), exact(**inputs), atol=0.05, rtol=0.05)
    assert next(rough.blocks.parameters()).dtype == torch.bfloat16
