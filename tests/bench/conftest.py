"""What the tests of the bench share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from polydit.core.testing.golden import GoldenCase


@pytest.fixture
def read_case() -> Callable[[str], GoldenCase]:
    """``read_case("adit-denoiser")``: a golden case of this checkout."""
    cases = Path(__file__).parents[1] / "golden" / "cases"
    return lambda name: GoldenCase.read(cases / f"{name}.json")
