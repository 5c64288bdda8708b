"""Errors keep all that they say, in one process and between processes."""

from __future__ import annotations

import pickle

import pytest

from polydit.core.errors import CheckpointError, InputError, MissingExtraError, PolyditError


@pytest.mark.parametrize(
    "error",
    [
        PolyditError("it broke", where="row 3", expected="a number", hint="Mend it"),
        InputError("is empty", where="a.sdf"),
        CheckpointError("is truncated"),
        MissingExtraError("mujoco", "polydit-x[sim]", purpose="simulation"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_whole_after_a_pickle(error: PolyditError) -> None:
    error.exit_code = 7
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error) and copy.args == error.args
    assert (copy.problem, copy.where, copy.expected, copy.hint, copy.exit_code) == (
        error.problem, error.where, error.expected, error.hint, 7,
    )  # fmt: skip
