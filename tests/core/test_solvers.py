"""Solvers on a flow whose solution is known, on the network, and in all that can go wrong between two runs.

Known: data is a mixture of two Gaussians on a line. Its velocity has a closed form, and since a flow on a line keeps
the order of points, it keeps their quantiles: the point that noise z becomes at level σ is where the mixture's
distribution function at σ has the value that the normal one has at z.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import (
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from polydit.core.errors import InputError
from polydit.core.models.dit import DiT
from polydit.core.sampling import denoise
from polydit.core.sampling.solvers import (
    INVERSIONS,
    SOLVERS,
    AB2Scheduler,
    AB3Scheduler,
    FlowSolver,
    MidpointScheduler,
    UniInvScheduler,
    adams_bashforth_weights,
    even_sigmas,
    solver,
)

WEIGHTS, MEANS, DEVIATIONS = torch.tensor([[0.3, 0.7], [-1.0, 0.8], [0.5, 0.4]], dtype=torch.float64).unbind(
    0
)
NOISE = torch.linspace(-2, 2, 9, dtype=torch.float64)
ORDERS = {"euler": 1, "midpoint": 2, "ab2": 2, "ab3": 3}


def parts(sigma: float) -> tuple[Tensor, Tensor]:
    """Means and variances of the mixture's parts at a level."""
    return (1 - sigma) * MEANS, ((1 - sigma) * DEVIATIONS).square() + sigma**2


def velocity(x: Tensor, timestep: Tensor, previous: Tensor | None = None) -> Tensor:
    """E[noise - data | x], at timesteps 0..1000."""
    sigma = float(timestep) / 1000
    means, variances = parts(sigma)
    offsets = x[:, None] - means
    posterior = torch.softmax(
        WEIGHTS.log() - 0.5 * variances.log() - 0.5 * offsets.square() / variances, dim=1
    )
    slopes = (sigma - (1 - sigma) * DEVIATIONS.square()) / variances
    return (posterior * (slopes * offsets - MEANS)).sum(1)


def solution(sigma: float) -> Tensor:
    """Where NOISE is at a level, by bisection."""
    means, variances = parts(sigma)
    low, high = torch.full_like(NOISE, -20.0), torch.full_like(NOISE, 20.0)
    for _ in range(80):
        middle = (low + high) / 2
        below = (WEIGHTS * torch.special.ndtr((middle[:, None] - means) / variances.sqrt())).sum(1)
        low, high = (
            torch.where(below < torch.special.ndtr(NOISE), a, b) for a, b in ((middle, low), (high, middle))
        )
    return low


def run(name: str, steps: int, x: Tensor, *, inverse: bool = False, shift: float = 1.0) -> Tensor:
    scheduler = (INVERSIONS if inverse else SOLVERS)[name](shift=shift)
    scheduler.set_timesteps(steps)
    return denoise(velocity, x, scheduler)


def measured_orders(error: Callable[[int], float]) -> list[float]:
    errors = [error(steps) for steps in (16, 32, 64)]
    return [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name: str, inverse: bool, shift: float) -> None:
    ends = (NOISE, solution(0.0))
    start, end = reversed(ends) if inverse else ends
    orders = measured_orders(
        lambda steps: float((run(name, steps, start, inverse=inverse, shift=shift) - end).abs().max())
    )
    assert all(abs(order - ORDERS[name]) < 0.45 for order in orders), orders


def test_uniinv_is_undone_by_euler_to_second_order() -> None:
    def round_trip(kind: type[FlowSolver], steps: int) -> float:
        back = FlowMatchEulerDiscreteScheduler(shift=3.0)
        there = kind(shift=3.0)
        for scheduler in (there, back):
            scheduler.set_timesteps(steps, sigmas=even_sigmas(steps))
        data = solution(0.0)
        return float((denoise(velocity, denoise(velocity, data, there), back) - data).abs().max())

    orders = measured_orders(lambda steps: round_trip(UniInvScheduler, steps))
    plain = measured_orders(lambda steps: round_trip(INVERSIONS["euler"], steps))
    assert all(abs(order - 2) < 0.45 for order in orders), orders
    assert all(abs(order - 1) < 0.3 for order in plain), plain


def test_midpoint_is_rf_solvers_formula() -> None:
    scheduler = MidpointScheduler(shift=2.0)
    scheduler.set_timesteps(5)
    x = NOISE
    for now, after in zip(scheduler.sigmas[:-1:2].double(), scheduler.sigmas[2::2].double(), strict=True):
        h = after - now
        v = velocity(x, 1000 * now)
        middle = velocity(x + h / 2 * v, 1000 * (now + h / 2))
        x = x + h * v + 0.5 * h**2 * (middle - v) / (h / 2)
    torch.testing.assert_close(denoise(velocity, NOISE, scheduler), x, atol=1e-6, rtol=0.0)


def test_weights_of_equal_steps_are_the_textbooks() -> None:
    assert adams_bashforth_weights([0.0, -1.0], 1.0) == pytest.approx([3 / 2, -1 / 2])
    assert adams_bashforth_weights([2.0, 2.5, 3.0], 1.5) == pytest.approx([-23 / 24, 16 / 24, -5 / 24])
    assert adams_bashforth_weights([0.5], 0.2) == pytest.approx([-0.3])


def test_weights_integrate_polynomials_exactly_on_uneven_levels() -> None:
    levels, end = [0.6, 0.75, 1.0], 0.1
    weights = adams_bashforth_weights(levels, end)
    for power in range(3):
        moved = sum(w * level**power for w, level in zip(weights, levels, strict=True))
        assert moved == pytest.approx((end ** (power + 1) - 0.6 ** (power + 1)) / (power + 1))


def test_a_tiny_step_is_not_extrapolated_from() -> None:
    """diffusers' own grid begins an inversion with 0.001; noise in the slopes would be multiplied by 50."""
    scheduler = INVERSIONS["ab2"]()
    scheduler.set_timesteps(sigmas=[1.0, 0.5, 0.001])
    zero = torch.zeros(1, dtype=torch.float64)
    slopes = iter((0.0, 1e-2, 0.0))
    moved = denoise(lambda x, t, previous: torch.full_like(x, next(slopes)), zero, scheduler)
    first, second = 0.499, 0.5  # Euler over the first, then AB2
    assert moved.item() == pytest.approx(1e-2 * (first - second**2 / (2 * first)), rel=1e-5)


@pytest.mark.parametrize(("name", "calls"), [("euler", 6), ("midpoint", 12), ("ab2", 6), ("ab3", 7)])
@pytest.mark.parametrize("inverse", [False, True])
def test_network_calls_and_levels(name: str, calls: int, inverse: bool) -> None:
    scheduler = solver(name, inverse=inverse)
    scheduler.set_timesteps(6)
    assert len(scheduler.timesteps) == calls == len(scheduler.sigmas) - 1
    torch.testing.assert_close(scheduler.timesteps, 1000 * scheduler.sigmas[:-1])
    assert scheduler.sigmas[[0, -1]].tolist() == ([0.0, 1.0] if inverse else [1.0, 0.0])


@pytest.mark.parametrize("name", [*ORDERS, "uniinv"])
def test_one_step_moves_from_end_to_end(name: str) -> None:
    constant = torch.full((3,), 0.5)
    scheduler = solver(name, inverse=True)
    scheduler.set_timesteps(1)
    torch.testing.assert_close(denoise(lambda x, t, previous: constant, torch.zeros(3), scheduler), constant)


def test_levels_below_one_invert_in_part() -> None:
    scheduler = solver("midpoint", inverse=True)
    scheduler.set_timesteps(sigmas=[0.6 * level for level in even_sigmas(32)])
    torch.testing.assert_close(
        denoise(velocity, solution(0.0), scheduler), solution(0.6), atol=1e-3, rtol=0.0
    )


def network() -> DiT:
    torch.manual_seed(0)
    model = DiT(sample_size=4, width=32, depth=2, heads=2, num_classes=3, learn_sigma=False).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("name", SOLVERS)
def test_the_network_and_four_equal_runs(name: str) -> None:
    model, noise = network(), torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 2])

    def predict(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        return model(x, timestep.expand(len(x)), labels).sample

    scheduler = solver(name)
    scheduler.set_timesteps(4)
    first = denoise(predict, noise, scheduler)
    assert first.isfinite().all() and not torch.equal(first, noise)
    for _ in range(3):
        assert torch.equal(denoise(predict, noise, scheduler), first)


@pytest.mark.parametrize("name", SOLVERS)
def test_predictions_of_the_data(name: str) -> None:
    """With `prediction="data"` the loop divides by each call's own level."""
    scheduler = solver(name)
    scheduler.set_timesteps(3)
    data = torch.randn(2, 5)
    found = denoise(lambda x, t, previous: data, torch.randn(2, 5), scheduler, prediction="data")
    torch.testing.assert_close(found, data, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_run_after_one_that_broke_off_is_unharmed(name: str) -> None:
    scheduler = solver(name)
    scheduler.set_timesteps(4)
    expected = denoise(velocity, NOISE, scheduler)
    calls = iter(range(100))

    def breaks(x: Tensor, timestep: Tensor, previous: Tensor | None) -> Tensor:
        if next(calls) == 2:
            raise RuntimeError("out of memory")
        return velocity(x, timestep)

    with pytest.raises(RuntimeError, match="out of memory"):
        denoise(breaks, NOISE[:3], scheduler)
    assert torch.equal(denoise(velocity, NOISE, scheduler), expected)


def test_a_timestep_out_of_turn_is_refused() -> None:
    scheduler = AB2Scheduler()
    with pytest.raises(InputError, match="Call set_timesteps first"):
        scheduler.step(NOISE, 1000.0, NOISE)
    scheduler.set_timesteps(4)
    scheduler.step(NOISE, scheduler.timesteps[0], NOISE)
    with pytest.raises(InputError, match="timestep 500 out of turn"):
        scheduler.step(NOISE, scheduler.timesteps[2], NOISE)


def test_a_run_may_begin_in_the_middle_of_the_grid() -> None:
    """As diffusers' image-to-image pipelines do it."""
    scheduler = MidpointScheduler()
    scheduler.set_timesteps(64)
    scheduler.set_begin_index(32 * scheduler.order)
    x = solution(0.5)
    for timestep in scheduler.timesteps[32 * scheduler.order :]:
        x = scheduler.step(velocity(x, timestep), timestep, x).prev_sample
    torch.testing.assert_close(x, solution(0.0), atol=1e-3, rtol=0.0)
    scheduler.set_timesteps(64)
    scheduler.set_begin_index(33)
    with pytest.raises(InputError, match="in the middle of a step"):
        scheduler.step(x, scheduler.timesteps[33], x)


def test_half_precision_samples_keep_their_dtype_and_are_summed_in_float32() -> None:
    scheduler = MidpointScheduler()
    scheduler.set_timesteps(256)
    x = torch.full((4,), 1.0)
    found = denoise(lambda x, t, previous: torch.full_like(x, 0.01), x.bfloat16(), scheduler)
    assert found.dtype == torch.bfloat16
    kept = denoise(lambda x, t, previous: torch.full_like(x, 0.01).bfloat16(), x, scheduler)
    assert kept.dtype == torch.float32
    torch.testing.assert_close(kept, x - 0.01, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("name", ["midpoint", "ab3"])
def test_tensors_are_dropped_after_a_run(name: str) -> None:
    scheduler = solver(name)
    scheduler.set_timesteps(3)
    denoise(velocity, NOISE, scheduler)
    assert not any(
        isinstance(value, Tensor) and value.shape == NOISE.shape for value in vars(scheduler).values()
    )
    assert not getattr(scheduler, "_past", ())


def test_configuration_is_that_of_diffusers_and_survives_a_folder(tmp_path: Path) -> None:
    theirs = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1)
    ours = AB3Scheduler.from_config(theirs.config)
    ours.save_pretrained(tmp_path)
    again = AB3Scheduler.from_pretrained(tmp_path)
    for scheduler in (theirs, ours, again):
        scheduler.set_timesteps(5, sigmas=even_sigmas(5), mu=0.9)
    assert torch.equal(ours.sigmas[[0, *range(2, 7)]], theirs.sigmas)
    assert torch.equal(again.sigmas, ours.sigmas)
    assert theirs.from_config(again.config).config.shift_terminal == 0.1


def test_shift_for_tokens_is_linear_through_both_points() -> None:
    scheduler = MidpointScheduler()
    assert [scheduler.shift_for(n) for n in (256, 4096)] == pytest.approx([0.5, 1.15])


def test_solver_takes_the_shift_of_what_it_replaces() -> None:
    assert solver("ab2", FlowMatchEulerDiscreteScheduler(shift=3.0)).config.shift == 3.0
    wan = UniPCMultistepScheduler(
        use_flow_sigmas=True, flow_shift=5.0, prediction_type="flow_prediction", num_train_timesteps=500
    )
    assert (solver("ab2", wan).config.shift, solver("ab2", wan).config.num_train_timesteps) == (5.0, 500)


@pytest.mark.parametrize("other", [DDPMScheduler, DPMSolverMultistepScheduler])
def test_solver_refuses_what_is_no_flow(other: type[DDPMScheduler]) -> None:
    with pytest.raises(InputError, match="not of flow matching"):
        solver("ab2", other())


def test_unknown_solvers_are_told_the_known_ones() -> None:
    with pytest.raises(InputError, match="euler, midpoint, rf-solver, ab2, ab3"):
        solver("heun3")


@pytest.mark.parametrize("steps", [0, -2])
@pytest.mark.parametrize("name", [*ORDERS, "uniinv"])
def test_no_steps_are_refused(name: str, steps: int) -> None:
    with pytest.raises(InputError, match="at least 1 step"):
        solver(name, inverse=True).set_timesteps(steps)


@pytest.mark.parametrize("sigmas", [[1.0, 0.5, 0.5], [1.0, 0.5, 0.0], [0.5, 1.0], [math.nan, 0.5]])
def test_levels_that_do_not_fall_are_refused(sigmas: list[float]) -> None:
    with pytest.raises(InputError, match="do not fall"):
        AB2Scheduler().set_timesteps(sigmas=sigmas)


def test_a_stochastic_configuration_is_refused() -> None:
    with pytest.raises(InputError, match="stochastic_sampling"):
        AB2Scheduler(stochastic_sampling=True).set_timesteps(4)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1.5])
def test_uniinv_refuses_a_part_without_steps(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        UniInvScheduler().set_timesteps(4, alpha=alpha)
