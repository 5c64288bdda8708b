"""A fraction with its interval, and a number with its unit."""

from __future__ import annotations

import pytest

from polydit.core.figure import Figure, Measure, wilson_interval


# R: binom::binom.confint(x, n, methods = "wilson")
@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0),
        (45, 50, 0.7864, 0.9565),
        (8545, 10_000, 0.8475, 0.8613),
    ],
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


def test_more_than_all_cannot_pass() -> None:
    with pytest.raises(AssertionError):
        Figure(name="valid", numerator=3, denominator=2, method="by rule")


def test_a_measure_is_read_by_people_and_programs() -> None:
    measure = Measure(name="psnr", value=21.234567, unit="dB", count=3, method="m", interval=(20.0, 22.5))
    assert (measure.text(), measure.text_interval()) == ("21.23 dB", "20 to 22.5")
    assert measure.to_json() == {
        "value": 21.234567,
        "unit": "dB",
        "count": 3,
        "interval": (20.0, 22.5),
        "method": "m",
    }
    nothing = Measure(name="hd95", value=None, unit="pixels", method="m")
    assert (nothing.text(), nothing.text_interval()) == ("-", "-")
    assert nothing.to_json() == {"value": None, "unit": "pixels", "interval": None, "method": "m"}
