"""The loops over the items of a run: items in, committed results out, one bad item fails alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from polydit.core.errors import CheckpointError, MissingExtraError, PolyditError
from polydit.core.jobs.files import DiskFullError, is_disk_full, naming_write_errors
from polydit.core.jobs.manifest import ItemFailure, ItemResult, ManifestRecord
from polydit.core.jobs.memory import (
    is_out_of_memory,
    peak_memory_mb,
    release_cached_memory,
    start_measuring_peak,
)
from polydit.core.jobs.run_folder import RunFolder

_log = logging.getLogger(__name__)

Outcome = ItemResult | ItemFailure


@runtime_checkable
class Item(Protocol):
    """What the loop has to know of an item; the rest is between the caller and its `work`."""

    @property
    def id(self) -> str: ...

    @property
    def index(self) -> int: ...

    @property
    def seed(self) -> int: ...


T = TypeVar("T", bound=Item)


@dataclass(slots=True)
class Tally:
    """What became of the items: made or failed now, or left as an earlier call left them."""

    ok: int = 0
    failed: int = 0
    kept_ok: int = 0
    kept_failed: int = 0

    @property
    def total(self) -> int:
        """All items that the loop saw."""
        return self.ok + self.failed + self.kept_ok + self.kept_failed

    @property
    def exit_code(self) -> int:
        """0: all are done; 3: some failed; 1: all failed."""
        if not self.failed + self.kept_failed:
            return 0
        return 3 if self.ok + self.kept_ok else 1


def run_batches(
    batches: Iterable[Sequence[T]],
    work: Callable[[Sequence[T]], Sequence[Outcome]],
    folder: RunFolder,
    *,
    weight: Callable[[Sequence[T]], float] = len,
    retry_failed: bool = False,
    fail_fast: bool = False,
    on_record: Callable[[ManifestRecord], object] = lambda record: None,
) -> Tally:
    """Does every item that the folder does not have yet, and commits after each batch.

    A batch of which only a part is missing is computed whole and its known items are dropped: its composition
    (and so the last bit of its results) is then the same whether or not an earlier call was interrupted.

    When memory runs out, the batch is halved and no later batch is heavier than that half. When a batch fails
    otherwise, its items are tried one by one, and those that fail again are recorded as failed.

    Args:
        batches: Items in batches; drawn lazily, so a run may be longer than memory.
        work: Turns a batch into one outcome per item, in order, without `seconds` and `peak_memory_mb`.
        folder: Where outcomes go.
        weight: What a batch costs in memory, in any unit: its length, or its padded tokens.
        retry_failed: Try again what an earlier call recorded as failed.
        fail_fast: Stop at the first failed item, after recording it.
        on_record: Called with each new line, after it is on the disk.

    Raises:
        DiskFullError: No room; everything committed stays valid.
        PolyditError: With `fail_fast`, an item failed.
    """
    ledger = _Ledger(folder, retry_failed, fail_fast, on_record)
    loop = _Loop(work, ledger, weight)
    for batch in batches:
        for item in batch:
            ledger.keep(item)
        loop.do(batch)
    return ledger.tally


def run_stream(
    items: Iterable[T],
    work: Callable[[Iterator[T]], Iterable[Sequence[Outcome]]],
    folder: RunFolder,
    *,
    retry_failed: bool = False,
    fail_fast: bool = False,
    on_record: Callable[[ManifestRecord], object] = lambda record: None,
) -> Tally:
    """Does every item that the folder does not have yet, and commits outcomes as soon as they are known.

    For items that are worked on side by side, such as by a `Crew`: a kill loses those in work and no other.

    Args:
        items: Drawn as `work` asks for them.
        work: Turns items into one outcome each, with `seconds` and `peak_memory_mb`, in any order; those that it
            gives together are committed together.
        folder: Where outcomes go.
        retry_failed: Try again what an earlier call recorded as failed.
        fail_fast: Stop at the first failed item, after recording it.
        on_record: Called with each new line, after it is on the disk.

    Raises:
        DiskFullError: No room; everything committed stays valid.
        PolyditError: With `fail_fast`, an item failed.
    """
    ledger = _Ledger(folder, retry_failed, fail_fast, on_record)
    for outcomes in work(item for item in items if not ledger.keep(item)):
        ledger.commit(outcomes)
    return ledger.tally


class _Ledger:
    """What is done already, and what is added to it."""

    def __init__(
        self,
        folder: RunFolder,
        retry_failed: bool,
        fail_fast: bool,
        on_record: Callable[[ManifestRecord], object],
    ) -> None:
        self.folder, self.tally = folder, Tally()
        self._done = ("ok",) if retry_failed else ("ok", "failed")
        self._fail_fast, self._on_record = fail_fast, on_record

    def has(self, item: Item) -> bool:
        return self.folder.manifest.status(item.id) in self._done

    def keep(self, item: Item) -> bool:
        """Counts the item if an earlier call has done it."""
        kept = self.has(item)
        if kept and self.folder.manifest.status(item.id) == "ok":
            self.tally.kept_ok += 1
        elif kept:
            self.tally.kept_failed += 1
        return kept

    def commit(self, outcomes: Sequence[Outcome]) -> None:
        records = self.folder.commit(outcomes)
        for record in records:
            self._on_record(record)
        failed = [record for record in records if record["status"] == "failed"]
        self.tally.ok += len(records) - len(failed)
        self.tally.failed += len(failed)
        if failed and self._fail_fast:
            raise PolyditError(failed[0]["error"]["message"], where=f"item {failed[0]['id']}")


class _Loop(Generic[T]):
    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[Outcome]],
        ledger: _Ledger,
        weight: Callable[[Sequence[T]], float],
    ) -> None:
        self._work, self._ledger, self._weight = work, ledger, weight
        self._heaviest = float("inf")

    def do(self, batch: Sequence[T]) -> None:
        """Does what of the batch is missing."""
        for part in self._light_enough(batch):
            if missing := [item for item in part if not self._ledger.has(item)]:
                self._attempt(part, missing)

    def _light_enough(self, batch: Sequence[T]) -> Iterator[Sequence[T]]:
        if len(batch) <= 1 or self._weight(batch) <= self._heaviest:
            yield batch
        else:
            yield from self._light_enough(batch[: len(batch) // 2])
            yield from self._light_enough(batch[len(batch) // 2 :])

    def _attempt(self, batch: Sequence[T], missing: Sequence[T]) -> None:
        started = time.monotonic()
        start_measuring_peak()
        outcomes: Sequence[Outcome] = ()
        trouble = None
        try:
            outcomes = self._work(batch)
        except (MissingExtraError, CheckpointError, DiskFullError):
            raise  # every item would fail in the same way
        except Exception as error:
            _refuse_full_disk(error, self._ledger.folder)
            _log.debug("a batch of %d failed", len(batch), exc_info=True)
            trouble = _Trouble(type(error).__name__, str(error), is_out_of_memory(error))
        # Outside of the handler: while the error lives, its traceback keeps the batch's tensors in memory.
        if trouble is None:
            assert [o.id for o in outcomes] == [item.id for item in batch], "one outcome per item, in order"
            self._commit(outcomes, missing, (time.monotonic() - started) / len(batch))
        elif len(batch) == 1:
            self._commit([trouble.failure(batch[0])], missing, time.monotonic() - started)
        elif trouble.memory:
            self._halve(batch)
        else:
            for item in missing:
                self._attempt([item], [item])

    def _halve(self, batch: Sequence[T]) -> None:
        self._heaviest = min(self._heaviest, self._weight(batch) / 2)
        _log.warning("out of memory with %d items at once; going on with half as many", len(batch))
        release_cached_memory()
        self.do(batch)

    def _commit(self, outcomes: Sequence[Outcome], missing: Sequence[T], seconds: float) -> None:
        wanted, peak = {item.id for item in missing}, peak_memory_mb()
        new = [replace(o, seconds=seconds, peak_memory_mb=peak) for o in outcomes if o.id in wanted]
        self._ledger.commit(new)


class _Trouble(NamedTuple):
    kind: str
    message: str
    memory: bool

    def failure(self, item: Item) -> ItemFailure:
        message = self.message or self.kind
        return ItemFailure(id=item.id, index=item.index, seed=item.seed, error=self.kind, message=message)


def _refuse_full_disk(error: Exception, folder: RunFolder) -> None:
    """A work function may write too; no later item would fare better."""
    if is_disk_full(error):
        with naming_write_errors(folder.path):
            raise error
