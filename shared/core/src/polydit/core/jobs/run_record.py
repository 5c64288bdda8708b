"""Reading a run folder, finished or still being written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from polydit.core.errors import InputError
from polydit.core.jobs.manifest import Manifest, ManifestRecord
from polydit.core.jobs.run_json import NAME, read_run_json


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says about itself; made by `read_run`.

    Args:
        folder: The run folder.
        run: The content of run.json.
    """

    folder: Path
    run: Mapping[str, Any]

    @property
    def command(self) -> str:
        """The command that made the run, such as "tool sample"."""
        return str(self.run["command"])

    @property
    def options(self) -> dict[str, Any]:
        """The effective options: name to value."""
        return {name: option["value"] for name, option in self.run["options"].items()}

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Checkpoint, device and whatever else made the items."""
        provenance: Mapping[str, Any] = self.run["provenance"]
        return provenance

    @cached_property
    def manifest(self) -> Manifest:
        """The lines as they were when first asked for."""
        return Manifest(self.folder / "manifest.jsonl")

    def records(self) -> Iterator[ManifestRecord]:
        """The lines of all items in the order of their index, one at a time."""
        return self.manifest.records()

    def finished(self) -> Iterator[ManifestRecord]:
        """The lines of the finished items."""
        return self.manifest.records("ok")

    def failed(self) -> Iterator[ManifestRecord]:
        """The lines of the failed items."""
        return self.manifest.records("failed")

    def files(self, ending: str = "") -> Iterator[tuple[ManifestRecord, Path]]:
        """Finished items with the path of each of their files whose name ends so, such as ".sdf".

        Raises:
            InputError: A path in the manifest leads out of the run folder.
        """
        root = self.folder.resolve()
        for record in self.finished():
            for output in record["outputs"]:
                path = self.folder / output["path"]
                if not path.resolve().is_relative_to(root):
                    where = f"{self.manifest.path}: {output['path']}"
                    raise InputError("leads out of the run folder", where=where)
                if path.name.endswith(ending):
                    yield record, path


def read_run(path: Path) -> RunRecord:
    """Reads a run folder, or the run.json in it, without changing anything.

    Raises:
        InputError: There is no run here.
    """
    file = path if path.name == NAME else path / NAME
    return RunRecord(file.parent, read_run_json(file))
