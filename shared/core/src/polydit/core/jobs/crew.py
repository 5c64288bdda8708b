"""Worker processes that prepare once and may die: each is replaced, and what it was doing is done again."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar, cast

from polydit.core.errors import PolyditError

Item = TypeVar("Item")
Result = TypeVar("Result")
Prepare: TypeAlias = Callable[[], AbstractContextManager[Callable[[Item], Result]]]

_AHEAD = 2  # items that a process holds, the one in work included: it never waits for the next one
_PATIENCE = 30.0  # seconds that an idle process has to close what it opened
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_FEWER = "Memory may have run out: try again with fewer --workers."


@dataclass(frozen=True, slots=True)
class Died:
    """What stands for the result of an item on which every process died that tried it.

    Args:
        exit_code: Of the last one; minus the number of the signal if one killed it.
        tries: How many there were.
    """

    exit_code: int
    tries: int

    @property
    def reason(self) -> str:
        """A sentence for the user."""
        how = f"exit code {self.exit_code}"
        if self.exit_code < 0:
            how = f"killed by {_signal_name(-self.exit_code)}"
        return f"the worker process died in each of {self.tries} tries (the last: {how})"


@dataclass(slots=True, eq=False)
class _Task(Generic[Item]):
    item: Item
    deaths: int = 0


@dataclass(slots=True, eq=False)
class _Member(Generic[Item]):
    process: BaseProcess
    connection: Connection[Any, Any]
    tasks: deque[_Task[Item]] = field(default_factory=deque)  # in the order in which it does them
    ready: bool = False

    def give(self, task: _Task[Item]) -> None:
        self.tasks.append(task)
        with suppress(OSError):  # it has died; the next look at its connection says so
            self.connection.send(task.item)

    def end(self, *, kill: bool = False) -> int:
        """Waits until the process is gone, and returns its exit code."""
        self.connection.close()  # an idle process ends when it sees this
        if not kill:
            self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        self.process.close()
        return code


class Crew(Generic[Item, Result]):
    """Processes that work side by side, each with one thread for numerics; a context manager.

    Results come as they are ready, in any order. A process that dies (a fault in native code, the kernel short
    of memory) is replaced; the item that it was doing is tried again, those it held besides are not blamed.

    Args:
        prepare: A module-level function, or a `functools.partial` of one, that gives a context manager. Each
            process enters it once, and leaves it at the end; what it yields turns an item into a result. An
            error of entering, or of an item, is raised by `map`.
        count: Number of processes.
        retries: How often an item is tried again on which a process died.
    """

    def __init__(self, prepare: Prepare[Item, Result], count: int = 1, *, retries: int = 2) -> None:
        self.count, self.retries = count, retries
        self._prepare = pickle.dumps(prepare)
        # Spawned, not forked: the caller may have started threads, such as torch's.
        self._context = get_context("spawn")
        self._members: list[_Member[Item]] = []
        self._false_starts = 0

    def __enter__(self) -> Crew[Item, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member.connection.close()  # all of them, so that they leave side by side
        for member in self._members:
            member.end(kill=error is not None)
        self._members.clear()

    def map(self, items: Iterable[Item]) -> Iterator[list[tuple[Item, Result | Died]]]:
        """Every item with its result, in groups: whatever is ready when the next group is asked for.

        Args:
            items: Drawn as the work proceeds, never all at once.

        Raises:
            PolyditError: Processes die before they are ready to work.
        """
        again: deque[_Task[Item]] = deque()
        fresh = map(_Task, items)
        while True:
            self._hand_out(chain(_drained(again), fresh))
            busy = {member.connection: member for member in self._members if member.tasks}
            if not busy:
                return
            done: list[tuple[Item, Result | Died]] = []
            for connection in wait(list(busy)):
                done += self._take(busy[cast("Connection[Any, Any]", connection)], again)
            if done:
                yield done

    def _take(self, member: _Member[Item], again: deque[_Task[Item]]) -> Iterator[tuple[Item, Result | Died]]:
        """What a process has said meanwhile; if it is dead, its items go back."""
        while member.connection.poll():
            try:
                kind, content = member.connection.recv()
            except (EOFError, OSError):
                yield from self._bury(member, again)
                return
            if kind == "error":
                raise content
            if kind == "ready":
                member.ready, self._false_starts = True, 0
            else:
                yield member.tasks.popleft().item, content

    def _hand_out(self, tasks: Iterator[_Task[Item]]) -> None:
        """Every process gets its first item before any gets its second."""
        for held in range(_AHEAD):
            for place in range(self.count):
                known = place < len(self._members)
                if known and len(self._members[place].tasks) > held:
                    continue
                if (task := next(tasks, None)) is None:
                    return
                if not known:
                    self._members.append(self._hire())
                self._members[place].give(task)

    def _hire(self) -> _Member[Item]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._prepare), daemon=True)
        process.start()
        theirs.close()  # so that the process holds the only copy, and its death closes the connection
        return _Member(process, ours)

    def _bury(self, member: _Member[Item], again: deque[_Task[Item]]) -> Iterator[tuple[Item, Result | Died]]:
        """Takes a dead process out, and its items back; the first of them is the one that it died on."""
        self._members.remove(member)
        exit_code = member.end()
        if not member.ready:
            self._false_starts += 1
            if self._false_starts > self.retries:
                died = Died(exit_code, self._false_starts)
                raise PolyditError(f"{died.reason}, before it was ready to work", hint=_FEWER)
        elif member.tasks:
            member.tasks[0].deaths += 1
            if member.tasks[0].deaths > self.retries:
                task = member.tasks.popleft()
                yield task.item, Died(exit_code, task.deaths)
        again.extend(member.tasks)


def spread(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result | Died]]:
    """Every item with its result: done here, one by one, or by a crew in any order.

    Args:
        work: A module-level function, or a `functools.partial` of one.
        items: What to do.
        workers: Number of processes; 1 = this one.

    Raises:
        PolyditError: Processes die before they are ready to work.
    """
    if workers == 1:
        for item in items:
            yield item, work(item)
        return
    prepare: Prepare[Item, Result] = partial(_as_it_is, work)
    with Crew(prepare, max(1, min(workers, len(items)))) as crew:
        for done in crew.map(items):
            yield from done


@contextmanager
def _as_it_is(work: Callable[[Item], Result]) -> Iterator[Callable[[Item], Result]]:
    yield work


def spread_chunks(
    work: Callable[[list[Item]], Result], items: Sequence[Item], workers: int, *, size: int
) -> Iterator[Result]:
    """What `work` gives for each chunk of the items; a chunk on which processes die ends it.

    Args:
        work: As of `spread`.
        items: What to do.
        workers: Number of processes; 1 = this one, which takes the items one by one.
        size: Items that a process gets at once.

    Raises:
        PolyditError: Every process died that tried a chunk, or before it was ready to work.
    """
    size = 1 if workers == 1 else size
    chunks = [list(items[start : start + size]) for start in range(0, len(items), size)]
    for _, result in spread(work, chunks, workers):
        if isinstance(result, Died):
            raise PolyditError(result.reason, hint="Run the same command again to go on.")
        yield result


def _drained(tasks: deque[_Task[Item]]) -> Iterator[_Task[Item]]:
    while tasks:
        yield tasks.popleft()


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


# ---------------------------------------------------------------------------------------------------------
# In the worker process.


def _serve(connection: Connection[Any, Any], prepare: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent alone decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    # Before numpy or torch is imported, which unpickling may do: processes side by side are the parallelism.
    os.environ |= dict.fromkeys(_THREADS, "1")
    try:
        with pickle.loads(prepare)() as work:
            _send(connection, "ready")
            for item in _received(connection):
                _send(connection, "result", work(item))
    except Exception as error:
        _send(connection, "error", _portable(error))


def _received(connection: Connection[Any, Any]) -> Iterator[Any]:
    """What the parent sends, until it closes the connection."""
    while True:
        try:
            item = connection.recv()
        except (EOFError, OSError):
            return
        yield item


def _send(connection: Connection[Any, Any], kind: str, content: object = None) -> None:
    with suppress(OSError):  # the parent has gone, or wants no more; the next item will not come either
        connection.send((kind, content))


def _end_with_the_parent() -> None:
    """A parent that was killed cannot say so: do not finish what nobody will take."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error itself if it survives the journey, else one with its message."""
    try:
        return cast("Exception", pickle.loads(pickle.dumps(error)))
    except Exception:
        return PolyditError(str(error) or type(error).__name__)
