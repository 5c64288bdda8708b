"""All distances that nearest neighbours need: computed in tiles by worker processes, each stored when it is done.

A killed evaluation goes on from its last tile, and memory is that of a few tiles beside the clouds and the matrix.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float64

from polydit.core.errors import PolyditError
from polydit.core.jobs.crew import Crew, Died
from polydit.core.jobs.files import atomic_file, naming_write_errors
from polydit.pointgen.evaluate.distance import Batch, Block, Clouds, Distance, Pairs, Task, at_work

FOLDER_PREFIX: Final = ".tiles-"
_BLOCK: Final = 32  # clouds whose bounds are computed together
_FEWEST_TO_BOUND: Final = 32  # with fewer clouds the bounds cost more than they save
_FIRST_ROUND: Final = 2  # distances per cloud and set; each round asks for more of what is still open
_GROWTH: Final = 3

Compute = Callable[[Sequence[Task]], Iterator[tuple[Task, np.ndarray]]]
Square = Float64[np.ndarray, "all all"]


class TileStore:
    """Finished tiles as files, each whole or absent.

    Args:
        folder: Where; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with naming_write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def of(cls, parent: Path, clouds: Clouds, distance: Distance) -> TileStore:
        """The store of exactly these clouds and this distance; tiles of others are never taken for theirs."""
        digest = hashlib.sha256(f"{distance.method} {clouds.shape}".encode())
        digest.update(np.ascontiguousarray(clouds).tobytes())
        return cls(parent / f"{FOLDER_PREFIX}{digest.hexdigest()[:16]}")

    def get(self, key: str) -> np.ndarray | None:
        """The tile, or None if it is to be computed."""
        path = self.folder / f"{key}.npy"
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def put(self, key: str, tile: np.ndarray) -> None:
        """Stores a tile; it is on the disk when this returns."""
        with naming_write_errors(self.folder), atomic_file(self.folder / f"{key}.npy") as handle:
            np.save(handle, tile, allow_pickle=False)


def remove_tiles(parent: Path) -> None:
    """Removes all stored tiles under `parent`: the figures that they were for are written."""
    for folder in parent.glob(f"{FOLDER_PREFIX}*"):
        shutil.rmtree(folder)


def nearest_distances(
    clouds: Clouds,
    is_reference: Bool[np.ndarray, " clouds"],
    distance: Distance,
    *,
    workers: int = 1,
    store: TileStore | None = None,
    on_pairs: Callable[[int], object] | None = None,
    bounded: bool = True,
) -> Float64[np.ndarray, "clouds clouds"]:
    """Distances of all pairs of clouds, as far as a nearest neighbour in either set depends on them.

    A pair is left out when a lower bound rules it out for both of its clouds; so the smallest entry of every row
    among the references, and that among the others, is exact.

    Args:
        clouds: Samples and references, in any order.
        is_reference: Which are references.
        distance: What is computed.
        workers: Processes side by side; for more than one a script needs `if __name__ == "__main__":`.
        store: Takes the tiles, and gives those that an earlier call left.
        on_pairs: Called with a number of pairs whenever so many are settled, for a progress bar; together n(n-1)/2.
        bounded: False computes every pair.

    Returns:
        Symmetric; infinite on the diagonal and where a pair was left out.

    Raises:
        PolyditError: Worker processes die, or the store cannot be written.
    """
    count = len(clouds)
    matrix, done = np.full((count, count), np.inf), np.eye(count, dtype=bool)
    settled, total, per_cloud = 0, count * (count - 1) // 2, _FIRST_ROUND
    with _team(clouds, distance, workers, store) as compute:
        bounds = np.zeros((count, count))
        if bounded and distance.power is not None and count >= _FEWEST_TO_BOUND:
            bounds = _bounds(count, distance, compute)
        else:
            per_cloud = count
        while len(pairs := _open_pairs(matrix, bounds, done, is_reference, per_cloud)):
            for task, values in compute(_batches(pairs, distance.pairs_per_batch)):
                assert isinstance(task, Batch)
                i, j = task.pairs.T
                matrix[i, j] = matrix[j, i] = values
                done[i, j] = done[j, i] = True
                settled += len(values)
                if on_pairs:
                    on_pairs(len(values))
            per_cloud *= _GROWTH
    if on_pairs and settled < total:
        on_pairs(total - settled)
    return matrix


def _bounds(count: int, distance: Distance, compute: Compute) -> Square:
    blocks = [Block(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK)]
    one_way = np.empty((count, count))
    for task, tile in compute(blocks):
        assert isinstance(task, Block)
        one_way[:, task.start : task.stop] = tile
    return distance.both_ways(one_way)


def _open_pairs(
    matrix: Square,
    bounds: Square,
    done: Bool[np.ndarray, "all all"],
    is_reference: Bool[np.ndarray, " all"],
    per_cloud: int,
) -> Pairs:
    """For each cloud and set the most promising pairs that could still hold its nearest neighbour."""
    chosen = np.zeros_like(done)
    for members in (is_reference, ~is_reference):
        if not members.any():
            continue
        columns = np.flatnonzero(members)
        best = matrix[:, columns].min(1, keepdims=True)
        promise = np.where(done[:, columns] | (bounds[:, columns] >= best), np.inf, bounds[:, columns])
        rows, places = _lowest(promise, per_cloud)
        chosen[rows, columns[places]] = True
    return np.argwhere(np.triu(chosen | chosen.T, 1)).astype(np.int32)


def _lowest(values: Float[np.ndarray, "rows columns"], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the `count` lowest finite values of each row."""
    if count < values.shape[1]:
        places = np.argpartition(values, count - 1, axis=1)[:, :count]
    else:
        places = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    finite = np.isfinite(np.take_along_axis(values, places, axis=1))
    return np.nonzero(finite)[0], places[finite]


def _batches(pairs: Pairs, size: int) -> list[Batch]:
    """Pairs that share clouds come together, so that a process finds their trees ready."""
    order = np.lexsort((pairs[:, 1] // _BLOCK, pairs[:, 0] // _BLOCK))
    return [Batch(pairs[order[start : start + size]]) for start in range(0, len(pairs), size)]


@contextmanager
def _team(clouds: Clouds, distance: Distance, workers: int, store: TileStore | None) -> Iterator[Compute]:
    """Those who compute tiles: this process, or several others."""
    prepare = partial(at_work, clouds, distance)
    with ExitStack() as stack:
        if workers == 1 or distance.by_torch:
            work = stack.enter_context(prepare())

            def results(tasks: Sequence[Task]) -> Iterator[tuple[Task, np.ndarray]]:
                return ((task, work(task)) for task in tasks)

        else:
            crew = stack.enter_context(Crew[Task, np.ndarray](prepare, workers))

            def results(tasks: Sequence[Task]) -> Iterator[tuple[Task, np.ndarray]]:
                for group in crew.map(tasks):
                    for task, tile in group:
                        if isinstance(tile, Died):
                            raise PolyditError(f"distances could not be computed: {tile.reason}")
                        yield task, tile

        def compute(tasks: Sequence[Task]) -> Iterator[tuple[Task, np.ndarray]]:
            if store is None:
                yield from results(tasks)
                return
            missing = []
            for task in tasks:
                if (tile := store.get(task.key)) is None:
                    missing.append(task)
                else:
                    yield task, tile
            for task, tile in results(missing):
                store.put(task.key, tile)
                yield task, tile

        yield compute
