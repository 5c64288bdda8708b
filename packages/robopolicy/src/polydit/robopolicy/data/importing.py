"""`robopolicy data import`: any data set that can be read, written anew as a LeRobotDataset v3.0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from polydit.core.errors import InputError
from polydit.robopolicy.data.features import Feature, features_of
from polydit.robopolicy.data.hdf5 import HDF5Dataset, HDF5Options, episode_files
from polydit.robopolicy.data.info import INFO
from polydit.robopolicy.data.readers import Dataset, good_episodes, number_of_episodes, read_dataset
from polydit.robopolicy.data.recipe import ImportRecipe
from polydit.robopolicy.data.writer import LeRobotWriter


class Imported(NamedTuple):
    """What became of the source's episodes.

    Attributes:
        kept: Written by an earlier call.
        written: Written now.
        bad: Number in the source and reason of those that cannot be written.
    """

    kept: int
    written: int
    bad: list[tuple[int, str]]


def import_dataset(
    dataset: Dataset,
    out: Path,
    recipe: ImportRecipe,
    *,
    overwrite: bool = False,
    watch: Callable[[int], object] = lambda index: None,
) -> Imported:
    """Writes every good episode; a bad one fails alone. An interrupted call is gone on with by the same one.

    Args:
        dataset: The source, opened by `open_source`.
        out: Folder of the new data set.
        recipe: How it was read, and how to write it.
        overwrite: Replace what is there.
        watch: Called with the number of each episode of the source when it is done.

    Raises:
        InputError: The source cannot be read, no episode is good, or `out` is taken.
        PolyditError: Writing failed.
    """
    first = next(good_episodes(dataset), None)
    if first is None:
        dataset[0]  # says why
        raise InputError("no episode can be read", where=recipe.source)
    count = number_of_episodes(dataset, recipe.limit)
    bad: list[tuple[int, str]] = []
    features = _features(dataset, features_of(first, pictures=recipe.pictures))
    robot_type = recipe.robot_type or dataset.info.robot_type
    with LeRobotWriter(
        out, fps=first.fps, features=features, robot_type=robot_type, recipe=asdict(recipe), resume=True,
        overwrite=overwrite,
    ) as writer:  # fmt: skip
        done = {int(staged.note["source"]) for staged in writer.episodes}
        for index in range(count):
            if index not in done:
                try:
                    writer.add(dataset[index], {"source": index})
                except InputError as error:
                    bad.append((index, str(error)))
            watch(index)
        if bad and not len(writer):
            raise InputError(f"no episode can be written, the first: {bad[0][1]}", where=recipe.source)
        written = len(writer) - len(done)
    return Imported(len(done), written, bad)


def open_source(recipe: ImportRecipe) -> Dataset:
    """The data set to read; HDF5 files with what the recipe says about them.

    Raises:
        InputError: As `read_dataset`.
    """
    path = Path(recipe.source)
    if (path / INFO).is_file() or not path.exists() or not episode_files(path):
        return read_dataset(path)
    options = HDF5Options(
        fps=recipe.fps,
        jpeg_order=recipe.jpeg_order,
        wording=recipe.wording,
        still=recipe.still,
        min_frames=recipe.min_frames,
    )
    return HDF5Dataset(path, options)


def _features(dataset: Dataset, found: dict[str, Feature]) -> dict[str, Feature]:
    """Those of an episode, with the names of numbers that the source states."""
    stated = dataset.info.features
    return {
        key: replace(feature, names=stated[key].names)
        if key in stated and not feature.is_picture
        else feature
        for key, feature in found.items()
    }
