"""A crew of worker processes: what they share, what they do at once, and what happens when one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, count, islice
from pathlib import Path

import pytest

from polydit.core.errors import InputError, MissingExtraError, PolyditError
from polydit.core.jobs.crew import Crew, Died, spread, spread_chunks

FATAL = 7  # the item on which `fragile` dies


@pytest.fixture(autouse=True)
def importable_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes import this file by its name, however the tests were started."""
    monkeypatch.syspath_prepend(root)


@contextmanager
def counting(folder: Path) -> Iterator[Callable[[int], tuple[int, int]]]:
    """Doubles numbers; leaves a file per process when it is entered and when it is left."""
    (folder / f"entered-{os.getpid()}").touch()
    yield lambda number: (2 * number, os.getpid())
    (folder / f"left-{os.getpid()}").touch()


@contextmanager
def fragile(folder: Path, deaths: int, *, number: int = signal.SIGSEGV) -> Iterator[Callable[[int], int]]:
    """Returns items as they are, but the first `deaths` processes that meet `FATAL` die."""

    def work(item: int) -> int:
        if item == FATAL and len(list(folder.iterdir())) < deaths:
            (folder / f"{os.getpid()}").touch()
            if number:
                os.kill(os.getpid(), number)
            os._exit(0)
        return item

    yield work


@contextmanager
def stillborn() -> Iterator[Callable[[int], int]]:
    os._exit(4)
    yield abs


ERRORS = {
    "input": InputError("no such task", where="--task x"),
    "extra": MissingExtraError("gym", "tool[gym]", purpose="a task"),  # made of other arguments than it keeps
}


@contextmanager
def refusing(error: str) -> Iterator[Callable[[int], int]]:
    raise ERRORS[error]
    yield abs


@contextmanager
def failing() -> Iterator[Callable[[int], float]]:
    yield lambda item: 1 / item


@contextmanager
def threads() -> Iterator[Callable[[int], tuple[int, bool]]]:
    import torch

    yield lambda item: (torch.get_num_threads(), signal.getsignal(signal.SIGINT) is signal.SIG_IGN)


@contextmanager
def sleeping(folder: Path) -> Iterator[Callable[[int], None]]:
    (folder / "ready").write_text(str(os.getpid()))
    yield time.sleep


def test_each_process_prepares_once_and_all_of_them_work(tmp_path: Path) -> None:
    with Crew(partial(counting, tmp_path), 2) as crew:
        first = dict(chain(*crew.map(range(40))))
        second = dict(chain(*crew.map(iter([100]))))  # the same processes
    assert {item: result[0] for item, result in (first | second).items() if not isinstance(result, Died)} == {
        **{n: 2 * n for n in range(40)},
        100: 200,
    }
    workers = {str(result[1]) for result in first.values() if not isinstance(result, Died)}
    assert len(workers) == 2 and str(os.getpid()) not in workers
    for event in ("entered", "left"):
        assert {path.name for path in tmp_path.glob(f"{event}-*")} == {f"{event}-{pid}" for pid in workers}


def test_items_are_drawn_as_the_work_proceeds(tmp_path: Path) -> None:
    with Crew(partial(counting, tmp_path)) as crew:
        results = chain.from_iterable(crew.map(count()))  # an endless input
        assert [item for item, _ in islice(results, 20)] == list(range(20))


def test_no_more_processes_than_items(tmp_path: Path) -> None:
    with Crew(partial(counting, tmp_path), 3) as crew:
        assert list(crew.map([])) == []
        assert len(list(crew.map([1]))) == 1
    assert len(list(tmp_path.glob("entered-*"))) == 1


def test_one_thread_for_numerics_and_deaf_to_ctrl_c() -> None:
    with Crew(threads) as crew:
        assert list(crew.map([0])) == [[(0, (1, True))]]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("deaths", [1, 2])
def test_the_item_of_a_process_that_died_is_done_again(tmp_path: Path, count: int, deaths: int) -> None:
    with Crew(partial(fragile, tmp_path, deaths), count) as crew:
        results = list(chain(*crew.map(range(12))))
    assert sorted(results) == [(n, n) for n in range(12)]
    assert len(list(tmp_path.iterdir())) == deaths


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGKILL, -9, "killed by SIGKILL"), (0, 0, "exit code 0")]
)
def test_an_item_that_kills_every_process_is_given_up(
    tmp_path: Path, number: int, code: int, word: str
) -> None:
    with Crew(partial(fragile, tmp_path, 99, number=number), 2) as crew:
        results = dict(chain(*crew.map(range(12))))
    died = results.pop(FATAL)
    assert results == {n: n for n in range(12) if n != FATAL}
    assert died == Died(code, 3)
    assert word in died.reason and "3 tries" in died.reason
    assert len(list(tmp_path.iterdir())) == 3


def test_processes_that_never_get_ready_are_an_error_with_advice() -> None:
    with Crew(stillborn, 2) as crew, pytest.raises(PolyditError, match=r"exit code 4.*--workers"):
        list(crew.map(range(5)))


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_of_preparing_is_raised_here(name: str) -> None:
    with Crew(partial(refusing, name), 2) as crew, pytest.raises(PolyditError) as caught:
        list(crew.map(range(3)))
    assert (str(caught.value), caught.value.exit_code) == (str(ERRORS[name]), ERRORS[name].exit_code)


def test_an_error_of_an_item_is_raised_here() -> None:
    with Crew(failing) as crew, pytest.raises(ZeroDivisionError):
        list(crew.map([2, 0]))


def test_an_error_ends_the_processes_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="enough"), Crew(partial(sleeping, tmp_path)) as crew:
        for _ in crew.map([0, 600]):
            raise RuntimeError("enough")
    assert time.monotonic() - started < 60
    assert not alive(int((tmp_path / "ready").read_text()))


def test_a_parent_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    program = (
        "import sys; from functools import partial; from pathlib import Path; from polydit.core.jobs.crew import Crew\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r}); from {Path(__file__).stem} import sleeping\n"
        "if __name__ == '__main__':\n"
        "    with Crew(partial(sleeping, Path(sys.argv[1]))) as crew:\n"
        "        list(crew.map([600]))\n"
    )
    (tmp_path / "program.py").write_text(program)
    with subprocess.Popen([sys.executable, tmp_path / "program.py", tmp_path]) as parent:
        wait_until(lambda: (tmp_path / "ready").exists() and (tmp_path / "ready").read_text())
        parent.kill()
    worker = int((tmp_path / "ready").read_text())
    wait_until(lambda: not alive(worker))


def doubled(number: int) -> int:
    return 2 * number


def summed(numbers: list[int]) -> int:
    return sum(numbers)


def fatal(item: int) -> int:
    os._exit(5)


def fatal_for_a_chunk(items: list[int]) -> int:
    os._exit(5)


def test_items_are_done_here_or_by_a_crew() -> None:
    assert list(spread(doubled, range(5), 1)) == [(n, 2 * n) for n in range(5)]
    assert sorted(spread(doubled, range(5), 2)) == [(n, 2 * n) for n in range(5)]
    assert list(spread(doubled, [], 2)) == []
    assert list(spread(fatal, [0], 2)) == [(0, Died(5, 3))]


def test_chunks_are_done_here_one_by_one_or_by_a_crew() -> None:
    assert list(spread_chunks(summed, [1, 2, 3], 1, size=2)) == [1, 2, 3]
    assert sorted(spread_chunks(summed, [1, 2, 3], 2, size=2)) == [3, 3]
    with pytest.raises(PolyditError, match=r"died in each of 3 tries.*same command again"):
        list(spread_chunks(fatal_for_a_chunk, [1], 2, size=2))


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
