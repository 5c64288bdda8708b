"""Worker processes: order, laziness, and what happens when one dies."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator

import pytest

from polydit.core.errors import PolyditError
from polydit.core.jobs.workers import Workers


@pytest.fixture(scope="module")
def pools() -> Iterator[dict[int, Workers]]:
    """The work in this process, and in two others."""
    with Workers(1) as here, Workers(2) as elsewhere:
        yield {1: here, 2: elsewhere}


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_order(pools: dict[int, Workers], count: int) -> None:
    numbers = list(range(300))
    assert list(pools[count].map(math.sqrt, [float(n * n) for n in numbers], chunk=7)) == numbers


@pytest.mark.parametrize("count", [1, 2])
def test_items_are_drawn_as_the_work_proceeds(pools: dict[int, Workers], count: int) -> None:
    results = pools[count].map(abs, itertools.count(), chunk=3)  # an endless input
    assert list(itertools.islice(results, 50)) == list(range(50))


@pytest.mark.parametrize("count", [1, 2])
def test_an_error_of_an_item_is_raised_here(pools: dict[int, Workers], count: int) -> None:
    with pytest.raises(ValueError, match="domain"):
        list(pools[count].map(math.sqrt, [4.0, -1.0]))


def test_a_process_that_dies_is_an_error_with_advice() -> None:
    with Workers(2) as workers, pytest.raises(PolyditError, match="--workers"):
        list(workers.map(os._exit, [1, 1]))
