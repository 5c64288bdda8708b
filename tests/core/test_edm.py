"""EDM's formulas against the paper's, against diffusers', and on data whose ideal denoiser is known."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import EDMEulerScheduler

from polydit.core.objectives.edm import EDM
from polydit.core.objectives.times import LogLogisticNoise, LogNormalNoise, NoiseDistribution
from polydit.core.sampling import denoise

EDM_OF_HALF = EDM(sigma_data=0.5)


@pytest.fixture
def ends() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    data, noise = (torch.randn(5, 3, 4, generator=generator) for _ in range(2))
    return data / 2, noise


def test_preconditioning_is_that_of_diffusers(ends: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, raw = ends
    theirs = EDMEulerScheduler(sigma_data=0.5)
    for level in (0.002, 0.3, 80.0):
        sigma = torch.full((5,), level)
        torch.testing.assert_close(EDM_OF_HALF.scaled(x, sigma), theirs.precondition_inputs(x, level))
        torch.testing.assert_close(
            EDM_OF_HALF.denoised(x, raw, sigma), theirs.precondition_outputs(x, raw, level)
        )
        torch.testing.assert_close(EDM_OF_HALF.condition(sigma)[:1], theirs.precondition_noise(level))


@pytest.mark.parametrize("level", [0.05, 1.0, 20.0])
def test_the_target_is_what_makes_the_denoiser_perfect(
    ends: tuple[torch.Tensor, torch.Tensor], level: float
) -> None:
    data, noise = ends
    sample = EDM(noise=LogLogisticNoise(math.log(level), 1e-9)).noisy(data, noise)
    torch.testing.assert_close(sample.t, torch.full((5,), level))
    torch.testing.assert_close(sample.x_t, data + level * noise)
    target = EDM_OF_HALF.target(sample)
    torch.testing.assert_close(EDM_OF_HALF.denoised(sample.x_t, target, sample.t), data, atol=1e-5, rtol=1e-4)


def test_the_loss_is_the_papers_weighted_error(ends: tuple[torch.Tensor, torch.Tensor]) -> None:
    """λ(σ) |D - data|², λ = (σ² + s²) / (σ s)²."""
    data, noise = ends
    sample = EDM_OF_HALF.noisy(data, noise, torch.Generator().manual_seed(1))
    raw = torch.randn(5, 3, 4)
    error = (EDM_OF_HALF.denoised(sample.x_t, raw, sample.t) - data).square().flatten(1).mean(1)
    weight = (sample.t.square() + 0.25) / (0.5 * sample.t).square()
    torch.testing.assert_close(EDM_OF_HALF.loss(raw, sample), weight * error, atol=1e-4, rtol=1e-4)


def test_the_target_has_unit_variance_at_every_level() -> None:
    data, noise = 0.5 * torch.randn(20_000, 1), torch.randn(20_000, 1)
    for level in (0.01, 0.5, 30.0):
        sample = EDM(noise=LogLogisticNoise(math.log(level), 1e-9)).noisy(data, noise)
        assert EDM_OF_HALF.target(sample).var().item() == pytest.approx(1.0, abs=0.05)


def test_masked_tokens_do_not_count(ends: tuple[torch.Tensor, torch.Tensor]) -> None:
    data, noise = ends
    sample = EDM_OF_HALF.noisy(data, noise, torch.Generator().manual_seed(1))
    prediction = EDM_OF_HALF.target(sample).clone()
    prediction[:, 2] += 100.0
    prediction[:, 0] += 0.5
    mask = torch.tensor([[True, True, False]]).expand(5, 3)
    torch.testing.assert_close(EDM_OF_HALF.loss(prediction, sample, mask), torch.full((5,), 0.125))


def test_ddim_steps_are_those_of_the_formula(ends: tuple[torch.Tensor, torch.Tensor]) -> None:
    """x ← (σ'/σ) x + (1 - σ'/σ) D(x, σ) over evenly spaced ln σ, then σ' = 0."""
    _, noise = ends
    scheduler = EDM_OF_HALF.scheduler(low=0.001, high=80.0, spacing="exponential")
    scheduler.set_timesteps(6)
    sigmas = torch.logspace(math.log10(80.0), -3.0, 6, dtype=torch.float64)
    torch.testing.assert_close(scheduler.sigmas[:-1].double(), sigmas, rtol=1e-5, atol=0.0)
    assert scheduler.sigmas[-1] == 0.0

    def network(scaled: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return torch.tanh(scaled + condition)

    expected = 80.0 * noise.double()
    for now, after in zip(sigmas, [*sigmas[1:], torch.zeros(())], strict=True):
        level = now.expand(5)
        raw = network(EDM_OF_HALF.scaled(expected, level), EDM_OF_HALF.condition(level)[:, None, None])
        clean = EDM_OF_HALF.denoised(expected, raw, level)
        expected = (after / now) * expected + (1.0 - after / now) * clean
    found = denoise(lambda x, t, previous: network(x, t), 80.0 * noise, scheduler)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_sampling_with_the_ideal_network_gives_the_datas_distribution() -> None:
    """For data N(m, s²) the ideal denoiser is known, and so is where its flow ends: at m + s · noise."""
    mean, deviation = 0.3, 0.5
    scheduler = EDM_OF_HALF.scheduler(low=0.001, high=80.0, spacing="exponential")
    scheduler.set_timesteps(400)
    noise = torch.linspace(-2, 2, 9)[:, None]

    def predict(scaled: torch.Tensor, condition: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        sigma = torch.exp(4.0 * condition)
        x = scaled * (sigma.square() + 0.25).sqrt()
        clean = (deviation**2 * x + sigma.square() * mean) / (sigma.square() + deviation**2)
        skip = 0.25 / (sigma.square() + 0.25)
        return (clean - skip * x) / (0.5 * sigma / (sigma.square() + 0.25).sqrt())

    torch.testing.assert_close(
        denoise(predict, 80.0 * noise, scheduler), mean + deviation * noise, atol=2e-2, rtol=0
    )


@pytest.mark.parametrize("noise", [LogLogisticNoise(), LogNormalNoise()])
def test_noise_levels_are_the_same_for_the_same_generator(noise: NoiseDistribution) -> None:
    first, second = (noise.sample(64, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, second) and (first > 0).all() and first.dtype == torch.float32


def test_log_normal_noise_has_its_moments() -> None:
    logs = LogNormalNoise(-0.6, 1.2).sample(20_000, torch.Generator().manual_seed(0)).log()
    assert logs.mean().item() == pytest.approx(-0.6, abs=0.03)
    assert logs.std().item() == pytest.approx(1.2, abs=0.03)


@pytest.mark.parametrize(("low", "high"), [(0.001, 80.0), (0.3, 0.9)])
def test_log_logistic_noise_has_its_distribution(low: float, high: float) -> None:
    """F(σ) = sigmoid((ln σ - loc) / scale), cut at both ends and scaled to 0..1 between them."""
    noise = LogLogisticNoise(loc=math.log(0.5), scale=0.5, low=low, high=high)
    drawn = noise.sample(20_000, torch.Generator().manual_seed(0)).double().sort().values
    assert drawn[0] >= low * 0.999 and drawn[-1] <= high * 1.001
    at = torch.sigmoid((torch.cat([drawn, torch.tensor([low, high])]).log() - math.log(0.5)) / 0.5)
    share = (at[:-2] - at[-2]) / (at[-1] - at[-2])
    expected = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    assert (share - expected).abs().max() < 0.015  # Kolmogorov and Smirnov: 0.0115 once in a hundred
