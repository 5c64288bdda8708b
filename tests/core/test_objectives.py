"""Objectives and samplers on models whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from polydit.core.objectives import (
    FlowMatching,
    GaussianDiffusion,
    LinearPath,
    LogitNormalTimes,
    UniformTimes,
    respace,
    shift_time,
)
from polydit.core.sampling import denoise, guided_model, integrate


@pytest.fixture
def ends() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise, data = (torch.randn(4, 3, 5, generator=generator) for _ in range(2))
    return noise, data, torch.tensor([0.1, 0.4, 0.7, 0.95])


def test_linear_path_conversions_agree(ends: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    noise, data, t = ends
    x, v = LinearPath.interpolate(noise, data, t), data - noise
    torch.testing.assert_close(LinearPath.data_from_velocity(x, v, t), data)
    torch.testing.assert_close(LinearPath.velocity_from_data(x, data, t), v, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(LinearPath.noise_from_velocity(x, v, t), noise)
    # the score of N(t·data, (1-t)²) at x is -noise / (1-t)
    score = -noise / (1 - t)[:, None, None]
    torch.testing.assert_close(LinearPath.score_from_velocity(x, v, t), score, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_loss_of_a_velocity_error_is_the_same_for_both_predictions(
    ends: tuple[torch.Tensor, torch.Tensor, torch.Tensor], prediction: str
) -> None:
    noise, data, _ = ends
    objective = FlowMatching(prediction=prediction, times=UniformTimes(0.2, 0.8))  # type: ignore[arg-type]
    sample = objective.noisy(data, noise, torch.Generator().manual_seed(1))
    velocity = data - noise + 0.5
    answer = (
        velocity
        if prediction == "velocity"
        else LinearPath.data_from_velocity(sample.x_t, velocity, sample.t)
    )
    torch.testing.assert_close(objective.loss(answer, sample), torch.full((4,), 0.25), atol=1e-4, rtol=1e-4)


def test_masked_loss_ignores_padding(ends: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    noise, data, _ = ends
    sample = FlowMatching().noisy(data, noise, torch.Generator().manual_seed(1))
    mask = torch.tensor([[True, True, False]]).expand(4, 3)
    answer = data - noise
    answer[:, 2] += 100.0
    assert FlowMatching().loss(answer, sample, mask).abs().max() < 1e-10


def test_weight_of_data_prediction_is_capped() -> None:
    data = torch.zeros(1, 1, 1)
    objective = FlowMatching(prediction="data", times=UniformTimes(0.99, 0.99), max_weight_time=0.9)
    sample = objective.noisy(data, torch.ones(1, 1, 1))
    assert objective.loss(torch.ones(1, 1, 1), sample).item() == pytest.approx(100.0, rel=1e-4)


def test_times_are_those_of_their_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform = UniformTimes(0.2, 0.6).sample(4000, generator)
    assert uniform.min() >= 0.2 and uniform.max() <= 0.6 and abs(uniform.mean().item() - 0.4) < 0.01
    logits = torch.logit(LogitNormalTimes(-0.5, 2.0).sample(4000, generator))
    assert abs(logits.mean().item() + 0.5) < 0.1 and abs(logits.std().item() - 2.0) < 0.1
    # Esser et al., equation 23, in sigma = 1 - t
    sigma = 3.0 * 0.25 / (1.0 + 2.0 * 0.25)
    assert shift_time(torch.tensor([0.75]), 3.0).item() == pytest.approx(1.0 - sigma)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
def test_diffusion_agrees_with_diffusers(prediction: str) -> None:
    diffusion = GaussianDiffusion.linear(prediction=prediction)  # type: ignore[arg-type]
    scheduler = DDPMScheduler(
        trained_betas=diffusion.betas,
        prediction_type={"v": "v_prediction"}.get(prediction, prediction),
        clip_sample=False,
    )
    data, noise, t = torch.randn(3, 2, 4), torch.randn(3, 2, 4), torch.tensor([5, 400, 990])
    x = diffusion.noisy(data, noise, t)
    torch.testing.assert_close(x, scheduler.add_noise(data, noise, t), atol=1e-5, rtol=1e-4)
    if prediction == "v":
        torch.testing.assert_close(diffusion.target(data, noise, t), scheduler.get_velocity(data, noise, t))
    answer = diffusion.target(data, noise, t)
    assert diffusion.loss(answer, data, noise, t).max() == 0.0
    torch.testing.assert_close(diffusion.data_from(answer, x, t), data, atol=1e-2, rtol=1e-2)


def test_respaced_betas_keep_the_noise_levels() -> None:
    betas = GaussianDiffusion.linear().betas
    kept = np.array([0, 111, 555, 999])
    short = np.cumprod(1 - respace(betas, kept))
    np.testing.assert_allclose(short, np.cumprod(1 - betas)[kept], rtol=1e-12)


def test_euler_loop_with_a_perfect_data_prediction_ends_at_the_data() -> None:
    data = torch.randn(2, 3, 4)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(7)
    seen: list[tuple[int, int]] = []
    result = denoise(
        lambda x, t, previous: data,
        torch.randn(2, 3, 4),
        scheduler,
        prediction="data",
        on_step=lambda *done: seen.append(done),
    )
    torch.testing.assert_close(result, data)
    assert seen == [(k, 7) for k in range(1, 8)]


def test_what_is_known_is_put_back_after_every_step() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    calls: list[int] = []

    def put(x: torch.Tensor, call: int) -> torch.Tensor:
        calls.append(call)
        return torch.cat([torch.full_like(x[:1], float(call)), x[1:]])

    result = denoise(lambda x, t, previous: x, torch.randn(2, 3), scheduler, after_step=put)
    assert calls == [1, 2, 3, 4]
    assert torch.equal(result[0], torch.full((3,), 4.0))


def test_stochastic_sampler_is_that_of_diffusers_with_the_noise_it_is_given() -> None:
    data, noise = torch.randn(2, 3), torch.randn(5, 2, 3)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    drawn = iter(noise[1:])
    levels = [0.0]  # of noise in what the network is given

    def predict(x: torch.Tensor, t: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        levels.append(float(((x - data) / (noise[len(levels) - 1] - data)).mean()))
        return data

    out = denoise(predict, noise[0], scheduler, prediction="data", fresh_noise=lambda: next(drawn))
    torch.testing.assert_close(out, data)
    torch.testing.assert_close(torch.tensor(levels[1:]), scheduler.sigmas[:4], atol=1e-4, rtol=0.0)


def test_self_conditioning_hands_over_the_last_prediction() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(3)
    given: list[torch.Tensor | None] = []

    def predict(x: torch.Tensor, t: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        given.append(previous)
        return torch.full_like(x, float(len(given)))

    denoise(
        predict,
        torch.zeros(1, 2),
        scheduler,
        prediction="data",
        self_condition=True,
        finish_with_prediction=True,
    )
    assert given[0] is None
    assert [int(p[0, 0]) for p in given[1:] if p is not None] == [1, 2, 3]


def test_ddim_of_a_gaussian_is_exact() -> None:
    """For data N(0, 1) the ideal noise prediction is √(1-ᾱ) x, and sampling leaves every x where it is."""
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(1000)
    ideal = GaussianDiffusion(scheduler.betas.double().numpy())

    def predict(x: torch.Tensor, t: torch.Tensor, previous: torch.Tensor | None) -> torch.Tensor:
        return (1.0 - ideal.alphas_cumprod[int(t)]) ** 0.5 * x

    x = torch.linspace(-2, 2, 9)[:, None]
    torch.testing.assert_close(denoise(predict, x, scheduler), x, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_solvers_converge_with_their_order(method: str, order: int) -> None:
    def error(steps: int) -> float:
        x = torch.ones(1, 1, dtype=torch.float64)
        times = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        found = integrate(lambda x, t: x * t.cos()[:, None], x, times, method)  # type: ignore[arg-type]
        return abs(found.item() - float(np.exp(np.sin(1.0))))

    assert np.log2(error(20) / error(40)) == pytest.approx(order, abs=0.15)


def test_guidance_touches_only_the_named_channels() -> None:
    conditional, unconditional = torch.full((2, 4), 3.0), torch.full((2, 4), 1.0)
    out = guided_model(lambda _: torch.cat([conditional, unconditional]), torch.zeros(2, 4), 2.0, channels=3)
    assert out[0].tolist() == [5.0, 5.0, 5.0, 3.0]
    everything = guided_model(lambda _: torch.cat([conditional, unconditional]), torch.zeros(2, 4), 0.0)
    assert torch.equal(everything, unconditional)
