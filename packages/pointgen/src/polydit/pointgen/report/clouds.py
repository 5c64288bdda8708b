"""The clouds of a run as its report shows them: read back from their files, coloured, counted."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from jaxtyping import Float32, UInt8

from polydit.core.errors import PolyditError
from polydit.core.jobs import ManifestRecord, RunRecord
from polydit.core.report import RAMP, PointScene, along_the_ramp
from polydit.core.report.markup import Markup
from polydit.pointgen.cloud import Cloud, Rejected
from polydit.pointgen.data.readers import read_clouds
from polydit.pointgen.report.thumbnails import VIEW, inline, thumbnail

UP: Final = 1  # the axis that points up
KNOWN: Final = "#c2413b"  # colour of the points that a completion was given
PALETTE: Final = (*RAMP, KNOWN)
MOST_POINTS: Final = 4096
"""Points of a view: more can be told apart by nobody, and make the page larger."""
_STILL_POINTS: Final = 2048
_READ_FIRST: Final = (".npy", ".ply", ".xyz", ".glb", ".obj")


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A cloud as pictures show it.

    Args:
        cloud: With at most `MOST_POINTS` of its points.
        colours: Their places in `PALETTE`: by height, and the known points of a completion in a colour of their own.
    """

    cloud: Cloud
    colours: UInt8[np.ndarray, " n"]

    @classmethod
    def of(cls, cloud: Cloud, known: int = 0) -> Shown:
        """From a whole cloud, whose first `known` points were given."""
        colours = along_the_ramp(cloud.points[:, UP].astype(np.float64))
        colours[:known] = len(RAMP)
        at = chosen_indices(cloud, MOST_POINTS)
        return cls(replace(cloud, points=cloud.points[at]), colours[at])

    def scene(self) -> PointScene:
        """For the viewer."""
        return PointScene(points=self.cloud.points, colours=self.colours, palette=PALETTE, rotation=VIEW)

    def still(self) -> Markup:
        """A small picture."""
        at = chosen_indices(self.cloud, _STILL_POINTS)
        png = thumbnail(self.cloud.points[at], self.colours[at], PALETTE)
        return inline(png, label=f"Point cloud {self.cloud.id}")


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A finished item of the run: what is shown of it, and its line in the manifest."""

    shown: Shown
    record: ManifestRecord

    @property
    def cloud(self) -> Cloud:
        """As it is shown."""
        return self.shown.cloud

    @property
    def num_points(self) -> int:
        """Of the whole cloud."""
        return int(self.record["measures"]["num_points"])


@dataclass(slots=True)
class Counts:
    """Finished and failed items by category."""

    ok: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    size: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, run: RunRecord) -> Counts:
        """From the manifest alone."""
        counts = cls()
        for record in run.records():
            category = str(record["measures"].get("category") or "any")
            (counts.ok if record["status"] == "ok" else counts.failed)[category] += 1
            if (size := record["measures"].get("size")) is not None:
                counts.size[category] = counts.size.get(category, np.zeros(3)) + np.asarray(size)
        return counts

    @property
    def categories(self) -> list[str]:
        """All of them, by name."""
        return sorted(self.ok | self.failed)

    def to_json(self) -> dict[str, Any]:
        """Counts by category."""
        return {name: {"clouds": self.ok[name], "failed": self.failed[name]} for name in self.categories}


def entries_of(run: RunRecord, missing: list[tuple[str, str]]) -> Iterator[Entry]:
    """The finished clouds in the order of the run, one at a time.

    Args:
        run: The run.
        missing: Gets (id, reason) of every finished item whose file cannot be read any more.
    """
    for record in run.finished():
        cloud, reason = _read(run, record)
        if cloud is None:
            missing.append((record["id"], reason))
        else:
            known = int(record["measures"].get("known_points", 0))
            yield Entry(Shown.of(cloud, known), record)


def _read(run: RunRecord, record: ManifestRecord) -> tuple[Cloud | None, str]:
    paths = [run.folder / output["path"] for output in record["outputs"]]
    paths = [path for path in paths if path.resolve().is_relative_to(run.folder.resolve())]
    chosen = min((p for p in paths if p.suffix in _READ_FIRST), key=_rank, default=None)
    if chosen is None:
        return None, "no file of it lies in the run folder"
    try:
        found = next(iter(read_clouds(chosen)))
    except PolyditError as error:
        return None, str(error)
    if isinstance(found, Rejected):
        return None, found.reason
    return replace(found, id=record["id"], category=record["measures"].get("category") or ""), ""


def _rank(path: Any) -> int:
    return _READ_FIRST.index(path.suffix)


def chosen_points(cloud: Cloud, most: int) -> Float32[np.ndarray, "n 3"]:
    """At most so many of a cloud's points, drawn by a seed from its name."""
    return cloud.points[chosen_indices(cloud, most)]


def chosen_indices(cloud: Cloud, most: int) -> np.ndarray:
    """Their places, ascending."""
    if cloud.num_points <= most:
        return np.arange(cloud.num_points)
    rng = np.random.default_rng(zlib.crc32(cloud.id.encode()))
    return np.sort(rng.choice(cloud.num_points, most, replace=False))
