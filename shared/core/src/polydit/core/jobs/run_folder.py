"""A run folder: run.json says what was asked, manifest.jsonl what was made, items/ holds it, scratch/ what
a long item has so far.

An item is written under a temporary name, synced, renamed, and only then gets its line; a line is what makes
an item exist. So a kill at any moment loses at most the items in work, and the same command goes on from
there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from polydit.core.errors import InputError
from polydit.core.jobs.files import (
    SCRATCH,
    atomic_file,
    naming_write_errors,
    remove_leftovers,
    safe_name,
    scratch_folder,
    sync_folder,
)
from polydit.core.jobs.lock import FolderLock
from polydit.core.jobs.manifest import ItemFailure, ItemResult, Manifest, ManifestRecord, Output, plain
from polydit.core.jobs.run_json import (
    NAME,
    Option,
    continued,
    new_run_json,
    now,
    read_run_json,
    refuse_other_settings,
    write_run_json,
)

# A thread waits for the disk most of its time; together they are some ten times as fast on a busy one.
_WRITERS = 8

EndStatus = Literal["done", "some failed", "failed", "interrupted"]


class RunFolder:
    """One run, open for writing by this process only. Made by `RunFolder.open`, used in a `with` block.

    Leaving the block by an error or an interruption records that in run.json and frees the folder.

    Attributes:
        path: The folder.
        items: The folder of the items' files.
        manifest: The lines of all items so far.
    """

    def __init__(self, path: Path, lock: FolderLock, run: dict[str, Any]) -> None:
        self.path, self.items = path, path / "items"
        self.manifest = Manifest(path / "manifest.jsonl")
        self._lock: FolderLock | None = lock
        self._run = run

    @classmethod
    def open(
        cls,
        out: Path,
        *,
        command: str,
        options: Mapping[str, Option],
        provenance: Mapping[str, Any],
        overwrite: bool = False,
        free: Collection[str] = (),
        growing: Collection[str] = (),
        products: Sequence[str] = (),
    ) -> RunFolder:
        """Opens `out` for a new run, or to go on with the one that is there.

        Args:
            out: The folder; made if absent.
            command: What runs, as the user typed it without options, such as "tool sample".
            options: The effective options with their sources.
            provenance: What else made the items: {"checkpoint": {"name", "sha256", "licence", ...}, ...}.
                The checkpoint's sha256 is compared in place of the option `checkpoint`, which is only a name.
            overwrite: Discard what an earlier run left.
            free: Options in which a rerun may differ, because they do not change what an item is.
            growing: Options of which a rerun may ask for more, since item k does not depend on their value.
            products: Names of what is made from the items and lies beside run.json (joined files, a report).

        Raises:
            InputError: The folder cannot be written, another run is working in it, it holds files of somebody
                else under our names, or a run with other settings (the message names them).
        """
        lock = _make_and_lock(out)
        try:
            with naming_write_errors(out):
                run = new_run_json(command, options, provenance, free, products)
                earlier = _earlier_run(out, overwrite)
                if earlier:
                    refuse_other_settings(out, earlier, run, growing)
                    run = continued(earlier, run)
                else:
                    _refuse_foreign(out, ["items", SCRATCH, "manifest.jsonl", *products])
                write_run_json(out, run)
                folder = cls(out, lock, run)
                folder.items.mkdir(exist_ok=True)
                remove_leftovers(out, [NAME, *run["products"]])
                folder.manifest.make_ready()
                if (out / SCRATCH).is_dir():  # a kill may have come between a line and what follows it
                    folder._remove_scratch(folder.finished)
        except BaseException:
            lock.release()
            raise
        return folder

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close("some failed" if self.manifest.count("failed") else "done")
        else:
            self.close("failed" if isinstance(error, Exception) else "interrupted")

    @property
    def finished(self) -> list[str]:
        """Ids of the finished items, in the order of their index."""
        return self.manifest.ids("ok")

    @property
    def failed(self) -> list[str]:
        """Ids of the failed items, in the order of their index."""
        return self.manifest.ids("failed")

    def note(self, **provenance: Any) -> None:
        """Adds to the run's provenance what is known only now, such as the device."""
        self._run["provenance"].update(plain(provenance))
        with naming_write_errors(self.path):
            write_run_json(self.path, self._run)

    def commit(self, outcomes: Sequence[ItemResult | ItemFailure]) -> list[ManifestRecord]:
        """Writes the items' files, then their lines; returns the lines.

        Raises:
            DiskFullError: No room; earlier commits are valid, this one leaves no line.
            PolyditError: The system refused to write.
        """
        with naming_write_errors(self.path), ThreadPoolExecutor(_WRITERS) as pool:
            records = list(pool.map(self._record, outcomes))
            sync_folder(self.items)
            self.manifest.append(records)
            if (self.path / SCRATCH).is_dir():
                self._remove_scratch([record["id"] for record in records if record["status"] == "ok"])
        return records

    def _record(self, outcome: ItemResult | ItemFailure) -> ManifestRecord:
        record = ManifestRecord(
            id=outcome.id,
            index=outcome.index,
            status="ok",
            seed=outcome.seed,
            attempt=self.manifest.attempts(outcome.id) + 1,
            inputs=list(outcome.inputs),
            outputs=[],
            measures=plain(outcome.measures),
            seconds=round(outcome.seconds, 4),
            peak_memory_mb=round(outcome.peak_memory_mb, 1),
        )
        if isinstance(outcome, ItemFailure):
            record["status"] = "failed"
            record["error"] = {"type": outcome.error, "message": outcome.message}
        else:
            record["outputs"] = [self._write(outcome.id, end, data) for end, data in outcome.files.items()]
        return record

    def _write(self, item_id: str, ending: str, content: bytes | Path) -> Output:
        path = self.items / (safe_name(item_id) + ending)
        assert ".." not in path.parts, f"{ending!r} leaves the run folder"
        if path.parent != self.items:
            path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            digest, size = _move(content, path), path.stat().st_size
        else:
            with atomic_file(path) as handle:
                handle.write(content)
            digest, size = hashlib.sha256(content).hexdigest(), len(content)
        return {"path": path.relative_to(self.path).as_posix(), "sha256": digest, "bytes": size}

    def _remove_scratch(self, item_ids: Sequence[str]) -> None:
        """Of finished items; what an unfinished one has so far stays."""
        for item_id in item_ids:
            shutil.rmtree(scratch_folder(self.path, item_id), ignore_errors=True)
        with suppress(OSError):  # not empty: some items are not finished
            (self.path / SCRATCH).rmdir()

    def write_product(self, name: str, parts: Iterable[bytes]) -> Path:
        """Writes one of the files made from the items, a part at a time, and returns its path."""
        assert name in self._run["products"], f"{name} was not announced when the folder was opened"
        path = self.path / name
        with naming_write_errors(self.path), atomic_file(path) as handle:
            for part in parts:
                handle.write(part)
        return path

    def close(self, status: EndStatus) -> None:
        """Records how this call ended and frees the folder; a second call does nothing."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        ended = now()
        counts = {"ok": self.manifest.count("ok"), "failed": self.manifest.count("failed")}
        self._run |= {"status": status, "ended": ended, "counts": counts}
        self._run["sessions"][-1] |= {"status": status, "ended": ended}
        try:
            # A run that ends with an error must say that one, not that a full disk refuses its last line too.
            with suppress(OSError) if status == "failed" else naming_write_errors(self.path):
                write_run_json(self.path, self._run)
        finally:
            lock.release()


def _move(source: Path, path: Path) -> str:
    """Moves a finished file to its name, on the disk before it has it; returns its digest."""
    with source.open("rb") as handle:
        os.fsync(handle.fileno())
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    source.replace(path)
    return digest


def _make_and_lock(out: Path) -> FolderLock:
    hint = "Choose another --out, or change its permissions."
    try:
        out.mkdir(parents=True, exist_ok=True)
        return FolderLock(out)
    except FileExistsError:
        raise InputError("is a file, not a folder", where=f"--out {out}") from None
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=f"--out {out}", hint=hint) from error


def _earlier_run(out: Path, overwrite: bool) -> dict[str, Any] | None:
    """The run that `out` holds, unless it is to be discarded, or an earlier call was killed discarding it."""
    if not (out / NAME).exists():
        return None
    earlier = read_run_json(out / NAME)
    if not overwrite and earlier["status"] != "clearing":
        return earlier
    write_run_json(out, earlier | {"status": "clearing"})
    for name in ["manifest.jsonl", *earlier["products"], "items", SCRATCH]:
        _remove(out, name)
    (out / NAME).unlink()
    return None


def _remove(out: Path, name: str) -> None:
    path = out / name
    if not path.resolve().is_relative_to(out.resolve()):
        raise InputError(f"lists a product outside of its folder: {name}", where=str(out / NAME))
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _refuse_foreign(out: Path, names: Sequence[str]) -> None:
    """Without run.json these are somebody else's: not ours to mix with ours, or to remove."""
    for name in names:
        if (out / name).exists():
            problem = f"holds {name} but no {NAME}, so it is not a run folder"
            raise InputError(problem, where=f"--out {out}", hint="Choose another --out.")
