"""From planned shapes to files in a run folder: the work of `sample`, `complete` and `interpolate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from polydit.core.checkpoints.files import sha256_of
from polydit.core.errors import InputError
from polydit.core.jobs import ItemFailure, ItemResult
from polydit.core.jobs.manifest import Output
from polydit.core.sampling.cache import Cache, CacheReport
from polydit.pointgen.cloud import Cloud, Rejected
from polydit.pointgen.data.readers import read_clouds
from polydit.pointgen.data.recipe import Scaling
from polydit.pointgen.data.writers import Format, render
from polydit.pointgen.pipeline import ShapeRequest
from polydit.pointgen.sampling_plan import PlannedShape
from polydit.pointgen.solvers import Solver

if TYPE_CHECKING:
    from polydit.pointgen.pipeline import PointPipeline


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """Known points, and how they lie in the units of the data.

    Args:
        points: As they were read.
        centre: Of their bounding box, or 0.
        side: The longest of their bounding box, or 1.
        source: The file with its digest.
    """

    points: Float32[np.ndarray, "m 3"]
    centre: Float32[np.ndarray, " 3"]
    side: float
    source: Output

    @classmethod
    def read(cls, path: Path, frame: Scaling) -> Partial:
        """From a file: a cloud as it is, a mesh as points on its surface.

        Args:
            path: The file.
            frame: "none": the points are in the units of the data already. "unit-box": centre and longest side of
                their box become 0 and 1 for the network, and what it makes is put back.

        Raises:
            InputError: There is no cloud in it.
        """
        cloud, *more = islice(read_clouds(path), 2)
        if more:
            raise InputError("the file holds several clouds", where=str(path), expected="one per file")
        if isinstance(cloud, Rejected):
            raise InputError(cloud.reason, where=cloud.source)
        low, high = cloud.points.min(0), cloud.points.max(0)
        boxed = frame == "unit-box"
        centre = (low + high) / 2 if boxed else np.zeros(3, np.float32)
        side = float((high - low).max()) if boxed else 1.0
        source: Output = {"path": str(path), "sha256": sha256_of(path), "bytes": path.stat().st_size}
        return cls(cloud.points, centre.astype(np.float32), side, source)

    def in_units_of_the_data(self) -> Float32[np.ndarray, "m 3"]:
        """What the network is given."""
        return (self.points - self.centre) / np.float32(self.side)

    def put_back(self, points: Float32[np.ndarray, "n 3"]) -> Float32[np.ndarray, "n 3"]:
        """A completion in the units of the file; the known points come first, exactly as they were."""
        added = points[len(self.points) :] * np.float32(self.side) + self.centre
        return np.concatenate([self.points, added])


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """The work function of `run_batches`: a batch of planned shapes in, files and measures out.

    Args:
        pipeline: Makes the clouds.
        num_points: Of every cloud.
        formats: One file per format and cloud.
        num_steps: Network calls per sample.
        guidance_scale: 1 = no guidance, 0 = without the category.
        solver: As the pipeline takes it.
        cache: Saves network calls; None = every step is computed.
        on_cache: Told what the cache did, after each batch.
        frame: How partial clouds are brought into the units of the data.
        model: Name of the checkpoint, written into the files beside the seed.
        on_step: Told (calls done, calls in all) within a batch.
    """

    pipeline: PointPipeline
    num_points: int
    formats: Sequence[Format]
    num_steps: int
    guidance_scale: float
    solver: Solver = "auto"
    cache: Cache | None = None
    on_cache: Callable[[CacheReport], object] | None = None
    frame: Scaling = "none"
    model: str = ""
    on_step: Callable[[int, int], None] | None = None

    def __call__(self, batch: Sequence[PlannedShape]) -> list[ItemResult | ItemFailure]:
        outcomes: dict[str, ItemResult | ItemFailure] = {}
        ready: list[tuple[PlannedShape, Partial | None, ShapeRequest]] = []
        for shape in batch:
            try:
                partial = _read_partial(shape.partial, self.frame) if shape.partial else None
                ready.append((shape, partial, self._request(shape, partial)))
            except InputError as error:  # of the partial cloud
                outcomes[shape.id] = _failure(shape, "NoCloud", str(error))
        results = self.pipeline(
            [request for _, _, request in ready],
            num_steps=self.num_steps,
            guidance_scale=self.guidance_scale,
            solver=self.solver,
            cache=self.cache,
            on_cache=self.on_cache,
            on_step=self.on_step,
        )
        for (shape, partial, _), result in zip(ready, results, strict=True):
            outcomes[shape.id] = self._outcome(shape, partial, result)
        return [outcomes[shape.id] for shape in batch]

    def _request(self, shape: PlannedShape, partial: Partial | None) -> ShapeRequest:
        return ShapeRequest(
            id=shape.id,
            category=shape.category,
            num_points=self.num_points,
            seed=shape.seed,
            partial=partial.in_units_of_the_data() if partial else None,
            seed_to=shape.seed_to,
            mix=shape.mix,
        )

    def _outcome(
        self, shape: PlannedShape, partial: Partial | None, result: Cloud | Rejected
    ) -> ItemResult | ItemFailure:
        if isinstance(result, Rejected):
            return _failure(shape, "NoCloud", result.reason)
        cloud = replace(result, points=partial.put_back(result.points)) if partial else result
        if self.guidance_scale == 0.0:
            cloud = replace(cloud, category="")  # none was asked for
        asked = {"seed_to": shape.seed_to, "mix": shape.mix} if shape.seed_to is not None else {}
        known = {"known_points": len(partial.points)} if partial else {}
        provenance = {"seed": str(shape.seed), "model": self.model, **_texts(asked)}
        return ItemResult(
            id=shape.id,
            index=shape.index,
            seed=shape.seed,
            files={f".{format}": render(cloud, format, provenance) for format in self.formats},
            measures={**measures(cloud), **asked, **known},
            inputs=[partial.source] if partial else [],
        )


def measures(cloud: Cloud) -> dict[str, Any]:
    """What is cheap to know of a cloud: category, number of points, sides of its bounding box."""
    sides = np.ptp(cloud.points, axis=0)
    return {
        "category": cloud.category,
        "num_points": cloud.num_points,
        "size": [round(float(side), 4) for side in sides],
    }


def _failure(shape: PlannedShape, error: str, message: str) -> ItemFailure:
    measured = {"category": shape.category}
    return ItemFailure(
        id=shape.id, index=shape.index, seed=shape.seed, error=error, message=message, measures=measured
    )


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}


@lru_cache(maxsize=4)  # several completions of one file are asked for close together
def _read_partial(path: Path, frame: Scaling) -> Partial:
    return Partial.read(path, frame)
