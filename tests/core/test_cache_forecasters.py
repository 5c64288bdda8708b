"""Forecasters against functions whose next value is known, schedules, clocks, and the sharing of DDT."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from polydit.core.errors import InputError
from polydit.core.sampling.cache import (
    Clock,
    FirstBlock,
    Forecaster,
    Interval,
    Newton,
    Reuse,
    Table,
    Taylor,
    optimal_sharing,
    sharing_costs,
)


def errors(forecaster: Forecaster, anchors: list[float], at: float) -> float:
    """Of exp(-rate t), which changes little between two full steps."""
    ladder = forecaster.ladder()
    rate = torch.tensor([-0.1, -0.05, -0.02], dtype=torch.float64)
    for time in anchors:
        ladder.record(time, (rate * time).exp())
    return float((ladder.forecast(at) - (rate * at).exp()).abs().max())


def test_reuse_gives_the_last_value() -> None:
    ladder = Reuse().ladder()
    for time in (0.0, 2.0):
        ladder.record(time, torch.full((2,), time))
    assert torch.equal(ladder.forecast(7.0), torch.full((2,), 2.0))


@pytest.mark.parametrize("order", [0, 1, 2, 3, 4])
def test_newton_is_exact_for_polynomials_of_its_degree_on_uneven_times(order: int) -> None:
    ladder = Newton(order).ladder()
    weights = torch.tensor([0.7, -1.3, 0.4, 0.2, -0.05], dtype=torch.float64)[: order + 1]

    def value(time: float) -> torch.Tensor:
        return sum(w * time**k for k, w in enumerate(weights)).reshape(1)

    for time in (9.0, 8.5, 7.0, 4.0, 3.5, 1.0):
        ladder.record(time, value(time))
    torch.testing.assert_close(ladder.forecast(-1.0), value(-1.0), atol=1e-9, rtol=1e-9)
    assert len(ladder.differences) == order + 1


def test_higher_orders_help_newton_and_not_the_published_series() -> None:
    anchors = [0.0, 1.0, 4.0, 7.0, 10.0, 13.0]
    newton = [errors(Newton(order), anchors, 14.0) for order in (1, 2, 3, 4)]
    taylor = [errors(Taylor(order), anchors, 14.0) for order in (1, 2, 3, 4)]
    assert all(later < 0.6 * earlier for earlier, later in itertools.pairwise(newton))
    assert newton[1] < 0.5 * taylor[1]
    assert taylor[3] > 0.8 * taylor[1]


def test_both_agree_at_order_1_and_before_enough_is_known() -> None:
    assert errors(Newton(1), [0.0, 3.0], 4.0) == pytest.approx(errors(Taylor(1), [0.0, 3.0], 4.0))
    assert errors(Newton(3), [0.0], 4.0) == errors(Taylor(3), [0.0], 4.0) == errors(Reuse(), [0.0], 4.0)


@pytest.mark.parametrize("kind", [Taylor, Newton])
def test_a_negative_order_is_refused(kind: type[Taylor] | type[Newton]) -> None:
    with pytest.raises(InputError, match="order: -1 is no order"):
        kind(-1)


def test_an_interval_counts_from_the_last_step_of_the_warm_up() -> None:
    full = [step for step, full in enumerate(Interval(every=4, warm_up=2).plan(20)) if full]
    assert full == [0, 1, 5, 9, 13, 17]
    assert all(Interval(every=1).plan(5))
    assert [s for s, full in enumerate(Interval(every=9, warm_up=1, cool_down=2).plan(8)) if full] == [
        0,
        6,
        7,
    ]


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: Interval(every=0), "no step can be full every 0 steps"),
        (lambda: Interval(every=-2), "no step can be full every -2 steps"),
        (lambda: Interval(warm_up=0), "a cache starts empty"),
        (lambda: Interval(cool_down=-1), "cool-down of -1"),
        (lambda: FirstBlock(threshold=-0.1), "no relative error"),
        (lambda: Table((False, True)), "nothing to be forecast from"),
        (lambda: Table(()), "nothing to be forecast from"),
        (lambda: Table.of_steps([0, 12], 12), "a table of 12 steps has no step 12"),
        (lambda: Table((True, False, False)).plan(4), "table is for 3 steps and the run has 4"),
        (lambda: Clock(num_steps=0), "0 steps"),
        (lambda: Clock(num_steps=3, sigmas=(1.0, 0.5)), "2 values"),
        (lambda: Clock.flow([1.0, 0.5, 0.5]), "the same time"),
        (lambda: optimal_sharing(torch.zeros(4, 1, 1, 1), 0), "no state can be computed every 0 steps"),
    ],
)
def test_what_cannot_be_is_refused(build: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        build()


def test_clocks_know_the_log_signal_to_noise_ratio() -> None:
    flow = Clock.flow([1.0, 0.5, 0.25, 0.0])
    assert flow.at(1, "log_snr") == pytest.approx(0.0)
    assert flow.at(2, "log_snr") == pytest.approx(2.0 * math.log(3.0))
    assert (flow.at(3, "sigma"), flow.at(3, "step")) == (0.0, 3.0)
    assert all(math.isfinite(value) for value in flow.log_snr)
    diffusion = Clock.diffusion([0.2, 0.5, 0.8])
    assert diffusion.at(1, "sigma") == pytest.approx(1.0)
    assert diffusion.at(2, "log_snr") == pytest.approx(math.log(0.8 / 0.2))
    assert not Clock(num_steps=4).has("sigma")


def test_sharing_is_the_best_of_all_choices() -> None:
    states = torch.randn(8, 2, 3, 4, generator=torch.Generator().manual_seed(0)).cumsum(0)
    costs = sharing_costs(states)

    def cost(starts: tuple[int, ...]) -> float:
        ends = (*starts[1:], len(states))
        return sum(float(costs[end - 1, start]) for start, end in zip(starts, ends, strict=True))

    for every, count in ((8, 1), (4, 2), (3, 2), (2, 4), (1, 8)):
        found = optimal_sharing(states, every)
        choices = [(0, *rest) for rest in itertools.combinations(range(1, 8), count - 1)]
        assert len(found) == count
        assert cost(found) == pytest.approx(min(map(cost, choices)))
    assert Table.of_steps(optimal_sharing(states, 2), 8).plan(8)[0]


def test_more_room_than_steps_leaves_one_state() -> None:
    assert optimal_sharing(torch.randn(3, 1, 2, 2), 5) == (0,)
