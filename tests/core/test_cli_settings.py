"""What the hooks of `polydit calibrate` share: a request's keys and values."""

from __future__ import annotations

import pytest

from polydit.core.cli.settings import filled
from polydit.core.errors import InputError


def test_a_request_is_filled_with_what_it_leaves_open() -> None:
    assert filled({}, kind="molecule", seed=7) == {"kind": "molecule", "seed": 7}
    assert filled({"seed": "0", "kind": "0"}, kind="molecule", seed=7) == {"kind": "0", "seed": 0}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"colour": "red"}, "there is no colour; expected kind, atoms or seed"),
        ({"seed": "-1"}, "seed is '-1'; expected a whole number"),
        ({"seed": ""}, "expected a whole number"),
    ],
)
def test_what_it_cannot_ask_is_refused(request_: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        filled(request_, kind="molecule", atoms="auto", seed=0)
