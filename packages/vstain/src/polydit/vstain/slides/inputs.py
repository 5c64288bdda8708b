"""What a run is to stain: files, folders and globs as the user names them, and the items they become."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from polydit.core.errors import InputError
from polydit.core.jobs.plan import Plan
from polydit.core.jobs.seeds import item_seed
from polydit.vstain.slides.settings import SUFFIXES

_RUN = "run.json"  # a folder that holds one is the output of a run


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedInput:
    """One slide or image to stain: an `Item` of `run_batches`.

    Attributes:
        index: Its place in the run.
        id: Its name.
        seed: Of its noise.
        path: The file.
    """

    index: int
    id: str
    seed: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class RunPlan(Plan[PlannedInput]):
    """The inputs, in their order.

    Args:
        inputs: Files, each once.
    """

    inputs: Sequence[Path]

    @property
    def num_items(self) -> int:
        """Of the whole run."""
        return len(self.inputs)

    def sample(self, index: int) -> PlannedInput:
        """Input `index` of the run, from 0."""
        name = self._names[index]
        return PlannedInput(index=index, id=name, seed=item_seed(self.seed, name), path=self.inputs[index])

    @cached_property
    def _names(self) -> list[str]:
        """Of every file its own name without the ending, and its path where two would be the same."""
        stems = [_stem(path) for path in self.inputs]
        counts = Counter(stems)
        return [
            stem if counts[stem] == 1 else path.as_posix()
            for stem, path in zip(stems, self.inputs, strict=True)
        ]


def find_inputs(texts: Sequence[str], out: Path) -> list[Path]:
    """The files that are meant, each once.

    A text is a path if there is one of that name, whatever brackets or asterisks are in it, else a pattern. Of a folder
    come all slides and images below it, except those in `out` and in other run folders.

    Args:
        texts: As the user wrote them.
        out: Where the run writes.

    Raises:
        InputError: A text matches nothing.
    """
    found: list[Path] = []
    for text in texts:
        if Path(text).exists():
            matches = [Path(text)]
        else:
            matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207  an absolute pattern too
            matches = [match for match in matches if not _within(match, out)]
        files = [file for match in matches for file in (_below(match, out) if match.is_dir() else [match])]
        if not files:
            raise InputError("there is no slide or image", where=text, expected=", ".join(sorted(SUFFIXES)))
        found.extend(files)
    return list(dict.fromkeys(found))


def _below(folder: Path, out: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(
            name for name in folders if not _within(here / name, out) and not (here / name / _RUN).exists()
        )
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield here / name


def _within(path: Path, out: Path) -> bool:
    return path.resolve().is_relative_to(out.resolve())


def _stem(path: Path) -> str:
    stem = path.stem
    return stem[: -len(".ome")] if stem.lower().endswith(".ome") else stem
