"""What a slide has so far: its plan, its finished tiles, and which they are. It survives a kill at any moment.

A tile counts once its byte in the journal says so, and that byte is written after the tile is on the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
from jaxtyping import UInt8

from polydit.core.errors import InputError
from polydit.core.jobs.files import atomic_file, sync_folder
from polydit.core.sampling.cache.named import NONE
from polydit.vstain.slides.grid import Grid, check_blend
from polydit.vstain.slides.mosaic import kept_side
from polydit.vstain.slides.settings import Blend

MISSING: Final = 0
DONE: Final = 1
FORMAT: Final = "polydit-slide/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidePlan:
    """Everything that decides the pixels of a stained slide; a journal of another plan is not gone on with.

    Args:
        slide: Digest of the file.
        model: Digest of the network.
        stain: Which stain.
        seed: Of the noise.
        mpp: Microns per pixel that is worked at.
        grid: The tiles.
        blend: How they are put together.
        num_steps: Of the sampler.
        guidance_scale: Of the sampler.
        mask: Whether cells are outlined too.
        skip: Whether tiles of glass are skipped.
        precision: Of the network.
        cache: Steps of the sampler that are forecast.
    """

    slide: str
    model: str
    stain: str
    seed: int
    mpp: float
    grid: Grid
    blend: Blend = "crop"
    num_steps: int = 0
    guidance_scale: float = 1.0
    mask: bool = True
    skip: bool = True
    precision: str = "fp32"
    cache: str = NONE

    def __post_init__(self) -> None:
        check_blend(self.grid, self.blend)

    def to_json(self) -> dict[str, Any]:
        """As the journal keeps it."""
        return {"format": FORMAT, **asdict(self)}


class Journal:
    """The folder of a slide that is being stained; a context manager.

    Args:
        folder: Made if it is missing.
        plan: What is being made.

    Raises:
        InputError: The folder is of another plan (the message names what differs), or damaged.
    """

    def __init__(self, folder: Path, plan: SlidePlan) -> None:
        self.folder, self.plan = folder, plan
        folder.mkdir(parents=True, exist_ok=True)
        self.side = kept_side(plan.grid, plan.blend)
        _check_plan(folder, plan)
        self._files = [_open(folder / "stain.tiles")]
        if plan.mask:
            self._files.append(_open(folder / "mask.tiles"))
        self._journal = _open(folder / "journal")
        # A file as long as the grid, whatever of it has been written; holes take no room.
        self._state = np.zeros(len(plan.grid), np.uint8)
        known = np.frombuffer(os.pread(self._journal, len(plan.grid), 0), np.uint8)
        self._state[: len(known)] = known
        sync_folder(folder)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for descriptor in (*self._files, self._journal):
            os.close(descriptor)

    def done(self, number: int) -> bool:
        """Whether a tile is finished."""
        return bool(self._state[number] == DONE)

    @property
    def num_done(self) -> int:
        """Finished tiles."""
        return int((self._state == DONE).sum())

    def add(
        self,
        numbers: Sequence[int],
        stain: UInt8[np.ndarray, "b s s 3"],
        mask: UInt8[np.ndarray, "b s s"] | None,
    ) -> None:
        """Writes what is kept of some tiles, then marks them all at once.

        Args:
            numbers: Of the tiles, increasing.
            stain: Their pixels.
            mask: 0 and 255, where the plan has one.

        Raises:
            OSError: The disk is full or refuses; none of the tiles is marked.
        """
        for descriptor, kept in zip(self._files, (stain, mask), strict=False):
            assert kept is not None, "the plan has a mask"
            for number, tile in zip(numbers, kept, strict=True):
                _write(descriptor, np.ascontiguousarray(tile).tobytes(), number * tile.nbytes)
            os.fsync(descriptor)
        first, last = numbers[0], numbers[-1]
        state = self._state[first : last + 1].copy()
        state[np.asarray(numbers) - first] = DONE
        _write(self._journal, state.tobytes(), first)  # should it get lost, the tiles are made again
        self._state[first : last + 1] = state

    def stain(self, number: int) -> UInt8[np.ndarray, "s s 3"] | None:
        """What is kept of a tile of the stain; None if it is not finished."""
        return self._read(self._files[0], number, 3)

    def mask(self, number: int) -> UInt8[np.ndarray, "s s 1"] | None:
        """What is kept of a tile of the mask; None if it is not finished."""
        return self._read(self._files[1], number, 1)

    def _read(self, descriptor: int, number: int, channels: int) -> UInt8[np.ndarray, "s s c"] | None:
        if not self.done(number):
            return None
        size = self.side * self.side * channels
        content = os.pread(descriptor, size, number * size)
        if len(content) != size:
            raise InputError("is damaged: a tile is cut", where=str(self.folder), hint="Use --overwrite.")
        return np.frombuffer(content, np.uint8).reshape(self.side, self.side, channels)


def _check_plan(folder: Path, plan: SlidePlan) -> None:
    path, wanted = folder / "plan.json", plan.to_json()
    if not path.exists():
        for name in ("journal", "stain.tiles", "mask.tiles"):
            (folder / name).unlink(missing_ok=True)
        with atomic_file(path) as handle:
            handle.write((json.dumps(wanted, indent=2) + "\n").encode())
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(there, dict):
            raise ValueError("no table")
    except ValueError as error:
        raise InputError("is damaged", where=str(path), hint="Use --overwrite.") from error
    if differing := _differing(there, wanted):
        raise InputError(
            f"holds tiles of another plan: {', '.join(differing)}",
            where=str(folder),
            hint="Repeat those settings to go on with it, or discard it with --overwrite.",
        )


def _differing(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} ({there.get(name)} before, {wanted.get(name)} now)"
        for name in sorted(there.keys() | wanted.keys())
        if there.get(name) != wanted.get(name)
    ]


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    """All of it; the first call nearly always does, and a full disk makes the second one raise."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
