"""Worker processes: a map that keeps the order and holds only a few chunks at a time."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from types import TracebackType
from typing import TypeVar

from polydit.core.errors import PolyditError

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNKS_PER_WORKER = 4


class Workers:
    """Processes that work side by side; a context manager.

    Args:
        count: With 1 everything happens in this process.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        if self.count > 1:
            # Spawned, not forked: the caller may have started threads, such as torch's.
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_ignore_interrupts)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, chunk: int = 64
    ) -> Iterator[Result]:
        """`map(function, items)`, in order.

        Args:
            function: A module-level function, or a `functools.partial` of one.
            items: Drawn as the work proceeds, never all at once.
            chunk: Items that travel to a process together.

        Raises:
            PolyditError: A process died.
        """
        if self._pool is None:
            yield from map(function, items)
            return
        remaining = iter(items)
        pending: deque[Future[list[Result]]] = deque()
        try:
            while batch := list(islice(remaining, chunk)):
                pending.append(self._pool.submit(_apply, function, batch))
                if len(pending) > self.count * _CHUNKS_PER_WORKER:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except BrokenProcessPool as error:
            hint = "Memory may have run out: try again with fewer --workers."
            raise PolyditError("a worker process died", hint=hint) from error


def _apply(function: Callable[[Item], Result], batch: list[Item]) -> list[Result]:
    return [function(item) for item in batch]


def _ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group; the parent alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
