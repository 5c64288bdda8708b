"""A fraction with its interval."""

from __future__ import annotations

import pytest

from polydit.core.figure import Figure, wilson_interval


# R: binom::binom.confint(x, n, methods = "wilson")
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (8, 10, 0.4902, 0.9433), (45, 50, 0.7864, 0.9565)],
)
def test_the_interval_is_the_known_one(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_a_figure_says_what_was_counted() -> None:
    figure = Figure(name="valid", numerator=45, denominator=50, method="by rule")
    assert figure.to_json() == {
        "value": 0.9,
        "numerator": 45,
        "denominator": 50,
        "interval": wilson_interval(45, 50),
        "method": "by rule",
    }
    assert (figure.percent(), figure.percent_interval()) == ("90.00 %", "78.64 to 95.65 %")


def test_nothing_counted_has_no_value() -> None:
    figure = Figure(name="valid", numerator=0, denominator=0, method="by rule")
    assert (figure.value, figure.interval, figure.percent(), figure.percent_interval()) == (
        None,
        None,
        "-",
        "-",
    )
