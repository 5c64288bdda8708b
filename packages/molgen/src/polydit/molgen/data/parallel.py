"""A lazy `map` over worker processes whose results come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any

_AHEAD = 16  # items in work for each worker

# As the built-in `map` of one argument: results in the order of the items, whatever process made them.
OrderedMap = Callable[[Any, Iterable[Any]], Iterator[Any]]


@contextmanager
def ordered_map(workers: int) -> Iterator[OrderedMap]:
    """The built-in `map` for one worker, else one over processes.

    Args:
        workers: Number of processes.
    """
    if workers <= 1:
        yield map
        return
    # spawn: a fork of a process with threads (torch, BLAS) may hang
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield partial(_map_ahead, pool, _AHEAD * workers)
        finally:
            pool.shutdown(cancel_futures=True)


def _map_ahead(pool: ProcessPoolExecutor, ahead: int, function: Any, items: Iterable[Any]) -> Iterator[Any]:
    """Keeps `ahead` items in work, so that an endless or long input is never drained into memory."""
    source = iter(items)
    pending: deque[Future[Any]] = deque()
    for item in source:
        pending.append(pool.submit(function, item))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
