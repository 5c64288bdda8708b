"""`robopolicy data make`: demonstrations of scripted experts as a LeRobotDataset v3.0; a kill costs one episode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from polydit.core.errors import InputError
from polydit.robopolicy.data.features import features_of
from polydit.robopolicy.data.info import INFO, load_json
from polydit.robopolicy.data.readers import STAGING
from polydit.robopolicy.data.recipe import MakeRecipe
from polydit.robopolicy.data.writer import RECIPE, LeRobotWriter, begun, remove

if TYPE_CHECKING:
    from polydit.robopolicy.envs.record import Skipped
    from polydit.robopolicy.episode import Episode

_PACKAGES = ("polydit-robopolicy", "metaworld", "gymnasium-robotics", "mujoco", "numpy")


class Recorded(NamedTuple):
    """An episode and where it came from."""

    episode: Episode
    task: str
    seed: int


def make_dataset(
    out: Path,
    recipe: MakeRecipe,
    *,
    workers: int = 1,
    overwrite: bool = False,
    on_begin: Callable[[int], object] = lambda kept: None,
    on_episode: Callable[[Recorded], object] = lambda recorded: None,
    on_skip: Callable[[Skipped], object] = lambda skipped: None,
) -> int:
    """Records what is still missing; returns how many episodes were recorded now.

    The same command goes on where it was interrupted, and gives the same data set as without the interruption. What is
    finished is left alone.

    Args:
        out: Folder of the data set.
        recipe: What to record.
        workers: Processes; the result does not depend on it.
        overwrite: Replace what is there.
        on_begin: Called once with the number of episodes that an earlier call recorded.
        on_episode: Called with each episode when it is on the disk.
        on_skip: Called with each seed that gave no demonstration.

    Raises:
        InputError: Another data set is there, or one made or begun with another recipe (the keys are named); or there
            is no such environment, task or camera.
        PolyditError: Writing failed, pictures cannot be made here, or an expert succeeds too seldom.
    """
    if (out / INFO).exists() and not overwrite:
        _refuse_other(out, recipe)
        on_begin(recipe.episodes * len(recipe.tasks))
        return 0
    earlier = None if overwrite else begun(out)
    recorded: Iterator[Recorded] = iter(())
    if earlier is None:
        recorded = _record_missing(recipe, [], workers, on_skip)
        first = next(recorded)
        fps, features = first.episode.fps, features_of(first.episode, pictures=recipe.pictures)
        recorded = chain([first], recorded)
    else:
        fps, features = earlier
    with LeRobotWriter(
        out, fps=fps, features=features, robot_type=recipe.env, recipe=_plain(recipe), about={"versions": _versions()},
        resume=True, overwrite=overwrite,
    ) as writer:  # fmt: skip
        on_begin(len(writer))
        if earlier is not None:
            recorded = _record_missing(recipe, [staged.note for staged in writer.episodes], workers, on_skip)
        count = 0
        for count, entry in enumerate(recorded, 1):  # noqa: B007
            writer.add(entry.episode, {"task": entry.task, "seed": entry.seed})
            on_episode(entry)
    return count


def _record_missing(
    recipe: MakeRecipe, notes: Sequence[Mapping[str, Any]], workers: int, on_skip: Callable[[Skipped], object]
) -> Iterator[Recorded]:
    """First the rest of the task that was interrupted, then the tasks that were not begun."""
    done = Counter(str(note["task"]) for note in notes)
    last = {str(note["task"]): int(note["seed"]) for note in notes}
    for task in recipe.tasks:
        if 0 < done[task] < recipe.episodes:
            yield from _record(recipe, [task], recipe.episodes - done[task], last[task] + 1, workers, on_skip)
    if fresh := [task for task in recipe.tasks if not done[task]]:
        yield from _record(recipe, fresh, recipe.episodes, recipe.seed, workers, on_skip)


def _record(
    recipe: MakeRecipe,
    tasks: Sequence[str],
    episodes: int,
    first_seed: int,
    workers: int,
    on_skip: Callable[[Skipped], object],
) -> Iterator[Recorded]:
    """Episodes with their seeds: every seed from the first gives an episode or is skipped, in order."""
    from polydit.robopolicy.envs.record import DemoRecipe, record_dataset
    from polydit.robopolicy.envs.rendering import RenderConfig

    size = recipe.image_size
    demos = DemoRecipe(
        noise=recipe.noise,
        stop_after_success=recipe.after_success,
        first_seed=first_seed,
        keep_failures=recipe.keep_failures,
        render=RenderConfig(cameras=recipe.cameras, height=size, width=size) if recipe.cameras else None,
    )
    seeds = dict.fromkeys(tasks, first_seed)

    def skip(skipped: Skipped) -> None:
        seeds[skipped.task] = skipped.seed + 1
        on_skip(skipped)

    recorded = record_dataset(recipe.env, tasks, episodes, recipe=demos, workers=workers, on_skip=skip)
    for number, episode in enumerate(recorded):
        task = tasks[number // episodes]
        yield Recorded(episode, task, seeds[task])
        seeds[task] += 1


def _plain(recipe: MakeRecipe) -> dict[str, Any]:
    """As JSON reads it back."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(recipe).items()}


def _refuse_other(out: Path, recipe: MakeRecipe) -> None:
    """A finished data set stays as it is; a recipe that is not the one it was made by is told."""
    hint = "Replace it with --overwrite, or choose another --out"
    if not (out / RECIPE).is_file():
        raise InputError("a data set is there already", where=f"--out {out}", hint=hint)
    made, wanted = load_json(out / RECIPE).get("recipe", {}), _plain(recipe)
    if changed := [key for key in wanted if made.get(key) != wanted[key]]:
        raise InputError(
            f"was made with other settings: {', '.join(changed)}", where=f"--out {out}", hint=hint
        )
    remove(out / STAGING)  # if the call that finished it was killed just then


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
