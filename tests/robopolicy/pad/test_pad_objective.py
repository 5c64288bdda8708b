"""PAD's objective: one clock for all that is denoised, and the variance that the network learns beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from polydit.core.objectives import GaussianDiffusion
from polydit.robopolicy.pad.network import Modalities
from polydit.robopolicy.pad.objective import JointDiffusion, respaced_times, variance_bound

PartsOf = Callable[..., tuple[Modalities, Modalities]]
TEXT = torch.linspace(-1, 1, 10).reshape(2, 5)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
def test_variance_bound_is_the_divergence_of_the_two_steps(prediction: Any) -> None:
    """Against torch.distributions, in bits."""
    diffusion = GaussianDiffusion.linear(1000, prediction)
    generator = torch.Generator().manual_seed(0)
    x, noise, v = (torch.randn(5, 3, 4, generator=generator).double() for _ in range(3))
    t = torch.tensor([0, 1, 30, 500, 999])
    x_t, right = diffusion.noisy(x, noise, t), diffusion.target(x, noise, t)
    guess = right + 0.01 * torch.randn(x.shape, generator=generator).double()
    true = diffusion.posterior(x, x_t, t)
    made = diffusion.posterior(diffusion.data_from(guess, x_t, t), x_t, t, v)
    steps = [Normal(step.mean, (0.5 * step.log_variance).exp()) for step in (true, made)]
    expected = kl_divergence(*steps) / np.log(2.0)
    torch.testing.assert_close(variance_bound(diffusion, (guess - right).square(), v, t), expected)


def test_variance_learns_how_wrong_the_prediction_is_without_moving_it() -> None:
    diffusion, t = GaussianDiffusion.linear(), torch.full((1,), 400)
    error = torch.full((1, 1), 0.5, requires_grad=True)
    v = torch.full((1, 1), -1.0, requires_grad=True)
    exact = variance_bound(diffusion, torch.zeros(1, 1), v.detach(), t)
    assert exact.item() == pytest.approx(0.0, abs=1e-7)
    variance_bound(diffusion, error, v, t).sum().backward()
    assert error.grad is None
    assert v.grad is not None and v.grad.item() < 0  # descent widens the step


def exact_network(prediction: Any, data: Modalities) -> Any:
    """A network that knows the data."""
    diffusion = GaussianDiffusion.linear(1000, prediction)

    def call(noisy: Modalities, now: Modalities, t: Tensor, text: Tensor, present: Any = None) -> Any:
        noise = noisy.map(
            lambda name, x: (
                (x - diffusion.noisy(data[name], torch.zeros_like(x), t)) / _sigma(diffusion, t, x)
            )
        )
        value = data.map(lambda name, x: diffusion.target(x, noise[name], t))
        return value, data.map(lambda _, x: -torch.ones_like(x))

    return call


def _sigma(diffusion: GaussianDiffusion, t: Tensor, x: Tensor) -> Tensor:
    return diffusion.noisy(torch.zeros_like(x), torch.ones_like(x), t)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v"])
@pytest.mark.parametrize("depth_maps", [True, False])
def test_knowing_the_data_costs_nothing_and_brings_it_back(
    part: PartsOf, prediction: Any, depth_maps: bool
) -> None:
    data, now = part(depth_maps=depth_maps)
    objective, model = JointDiffusion(prediction=prediction), exact_network(prediction, data)
    terms = objective.loss(model, data, now, TEXT, torch.Generator().manual_seed(1))
    names = [name for name, _ in data.items()]
    assert set(terms) == {*names, *(f"{name}_mse" for name in names)}
    for name in names:
        assert terms[name].item() == pytest.approx(0.0, abs=1e-4)
    noise = data.map(lambda _, x: torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    made = objective.sample(model, noise, now, TEXT, 10, generators)
    for name, x in data.items():
        torch.testing.assert_close(made[name], x, atol=2e-3, rtol=0.0)


def test_variance_out_of_range_counts_as_its_bound(part: PartsOf) -> None:
    """A network that is hardly trained says v = 20 where v mattered little; its steps must not explode."""
    data, now = part(depth_maps=False)
    exact, made = exact_network("sample", data), {}
    for v in (1.0, 20.0):

        def model(*given: Any, v: float = v) -> tuple[Modalities, Modalities]:
            value, variance = exact(*given)
            return value, variance.map(lambda _, x: torch.full_like(x, v))

        noise = data.map(lambda _, x: torch.randn(x.shape, generator=torch.Generator().manual_seed(2)))
        generators = [torch.Generator().manual_seed(i) for i in range(2)]
        made[v] = JointDiffusion(prediction="sample").sample(model, noise, now, TEXT, 2, generators)
    assert torch.equal(made[1.0]["actions"], made[20.0]["actions"])


def test_respaced_times_are_those_of_published_dit() -> None:
    assert respaced_times(5).tolist() == [0, 250, 500, 749, 999]  # 499.5 and 749.25, ties to even
    assert len(set(respaced_times(50).tolist())) == 50
