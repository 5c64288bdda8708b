"""`robopolicy data`: make, inspect and import demonstrations."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from polydit.core.cli.options import (
    config_option,
    limit_option,
    out_option,
    output_options,
    overwrite_option,
    seed_option,
    workers_option,
)
from polydit.core.cli.output import Output
from polydit.core.errors import InputError
from polydit.robopolicy.data.recipe import ImportRecipe, MakeRecipe, Pictures
from polydit.robopolicy.envs import environments, instruction

if TYPE_CHECKING:
    from polydit.robopolicy.data.make import Recorded
    from polydit.robopolicy.envs.record import Skipped

SOME_BAD = 3
_LARGEST_SEED = 2**31 - 1  # what every simulator takes
_MAKE = {field.name: field.default for field in fields(MakeRecipe)}
_IMPORT = {field.name: field.default for field in fields(ImportRecipe)}

pictures_option = click.option(
    "--pictures", type=click.Choice(get_args(Pictures)), default=_MAKE["pictures"],
    help="Store pictures as h264 videos, or without loss as PNG in the tables.",
)  # fmt: skip


@click.group()
def data() -> None:
    """Make, inspect and import demonstrations."""


@data.command()
@click.option("--env", type=click.Choice(environments()), default=_MAKE["env"], help="The simulator.")
@click.option("--task", multiple=True, metavar="NAME", help="A task of it; may be repeated.")
@click.option(
    "--tasks", "all_tasks", type=click.Choice(["all"]), default=None, show_default=False,
    help="All its tasks that have an expert.",
)  # fmt: skip
@click.option(
    "--episodes", type=click.IntRange(min=1), default=_MAKE["episodes"], help="Demonstrations of each task."
)
@click.option(
    "--noise", type=click.FloatRange(min=0), default=_MAKE["noise"],
    help="Shake the executed actions by this deviation; the expert's clean action is stored.",
)  # fmt: skip
@click.option(
    "--after-success", type=click.IntRange(min=0), default=_MAKE["after_success"], metavar="STEPS",
    help="Go on so long after the first success.",
)  # fmt: skip
@click.option("--keep-failures", is_flag=True, help="Keep episodes without success too.")
@click.option(
    "--camera", "cameras", multiple=True, metavar="NAME", show_default="states only",
    help="Store this camera's pictures; may be repeated.",
)  # fmt: skip
@click.option(
    "--image-size", type=click.IntRange(min=16), default=_MAKE["image_size"], help="Their side in pixels."
)
@pictures_option
@seed_option(
    type=click.IntRange(0, _LARGEST_SEED), default=_MAKE["seed"],
    help="Seed of each task's first layout; the next ones count up. Evaluations use those from 100000 up.",
)  # fmt: skip
@out_option(help="Folder of the data set; one that was interrupted is gone on with.", metavar="DIR")
@overwrite_option(help="Replace the data set that is there.")
@config_option
@workers_option
@output_options
def make(
    out: Path,
    overwrite: bool,
    env: str,
    task: tuple[str, ...],
    all_tasks: str | None,
    workers: int,
    output: Output,
    **settings: Any,
) -> None:
    """Record demonstrations of scripted experts as a LeRobotDataset v3.0.

    \b
    robopolicy data make --env metaworld --task drawer-open-v3 --episodes 50 --out demos/
    robopolicy data make --tasks all --episodes 20 --workers 2 --out all/
    robopolicy data make --task push-v3 --camera corner3 --image-size 128 --out pictures/

    A layout in which the expert fails is left out and the next one tried. The same command run again goes on where it
    was interrupted and gives the same data set.
    """
    recipe = MakeRecipe(env=env, tasks=_tasks(env, task, all_tasks), **settings)
    for name in recipe.tasks:
        instruction(env, name)
    from polydit.robopolicy.data.make import make_dataset

    total, begun, skipped = recipe.episodes * len(recipe.tasks), 0, 0
    with output.progress(total, what="episodes", unit="episode") as progress:

        def begin(kept: int) -> None:
            nonlocal begun
            begun = kept
            progress.update(kept)

        def recorded(entry: Recorded) -> None:
            progress.update()
            progress.set_postfix_str(entry.task)
            output.item({"task": entry.task, "seed": entry.seed, "frames": len(entry.episode)})

        def skip(entry: Skipped) -> None:
            nonlocal skipped
            skipped += 1
            output.detail(f"{entry.task}, seed {entry.seed}: {entry.reason}")

        count = make_dataset(
            out,
            recipe,
            workers=workers,
            overwrite=overwrite,
            on_begin=begin,
            on_episode=recorded,
            on_skip=skip,
        )
    summary = {
        "out": str(out),
        "recorded": count,
        "kept": begun,
        "skipped": skipped,
        "tasks": len(recipe.tasks),
    }
    earlier = f", {begun} are of an earlier call" if begun else ""
    lines = [f"recorded {count} episodes{earlier}; {skipped} layouts were skipped", f"data: {out}"]
    output.summary(summary, *lines)


def _tasks(env: str, chosen: tuple[str, ...], all_tasks: str | None) -> tuple[str, ...]:
    if bool(chosen) == bool(all_tasks):
        raise InputError("name tasks or take all", hint="Add --task NAME, or --tasks all")
    if chosen:
        return tuple(dict.fromkeys(chosen))
    from polydit.robopolicy.envs.experts import expert_tasks

    names = expert_tasks(env)
    if not names:
        raise InputError(f"no task of {env} has a scripted expert", where="--tasks")
    return names


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--decode", is_flag=True, help="Decode every picture, not only count them.")
@click.option("--show-problems", type=click.IntRange(min=0), default=20, help="How many problems to name.")
@limit_option(help="At most this many episodes.")
@output_options
@click.pass_context
def inspect(
    ctx: click.Context, /, path: Path, decode: bool, show_problems: int, limit: int | None, output: Output
) -> None:
    """Show what is in a data set, and every episode that is bad and why.

    PATH is a LeRobotDataset v3.0, v2.1 or v2.0, an HDF5 episode, or a folder of such. Exit code 3 if something is bad.

    \b
    robopolicy data inspect demos/
    robopolicy data inspect --json --decode recordings/
    """
    from polydit.robopolicy.data.inspect import inspect_dataset
    from polydit.robopolicy.data.readers import number_of_episodes, read_dataset

    dataset = read_dataset(path)
    total = number_of_episodes(dataset, limit)
    with output.progress(total, what="episodes", unit="episode") as progress:
        found = inspect_dataset(dataset, decode=decode, limit=limit, watch=lambda index: progress.update())
    output.summary(found.to_json(), *found.lines(show_problems))
    ctx.exit(SOME_BAD if found.problems else 0)


@data.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@pictures_option
@click.option(
    "--robot-type", default=_IMPORT["robot_type"], show_default="the source's", help="Name of the robot."
)
@click.option(
    "--fps", type=click.FloatRange(min=0, min_open=True), default=_IMPORT["fps"], show_default="the file's, else 25",
    help="Frames per second of HDF5 episodes.",
)  # fmt: skip
@click.option(
    "--jpeg-order", type=click.Choice(["bgr", "rgb"]), default=_IMPORT["jpeg_order"],
    help="HDF5: bgr = JPEG written by OpenCV from RGB arrays (RDT, ALOHA), rgb = any other JPEG.",
)  # fmt: skip
@click.option(
    "--wording", type=click.Choice(["instruction", "simplified", "expanded", "mixed"]), default=_IMPORT["wording"],
    help="HDF5: which wording of the instruction to take, where there are three.",
)  # fmt: skip
@click.option(
    "--still", type=click.FloatRange(min=0), default=_IMPORT["still"],
    help="HDF5: drop leading frames in which no joint moves by more than this; RDT drops 0.01, 0 drops none.",
)  # fmt: skip
@click.option(
    "--min-frames", type=click.IntRange(min=1), default=_IMPORT["min_frames"],
    help="HDF5: leave shorter episodes out; RDT uses 128.",
)  # fmt: skip
@limit_option(help="At most this many episodes of the source.")
@out_option(help="Folder of the new data set; one that was interrupted is gone on with.", metavar="DIR")
@overwrite_option(help="Replace the data set that is there.")
@config_option
@output_options
@click.pass_context
def import_data(
    ctx: click.Context, /, source: Path, out: Path, overwrite: bool, output: Output, **settings: Any
) -> None:
    """Write any data set that can be read anew as a LeRobotDataset v3.0.

    \b
    robopolicy data import recordings/ --out demos/
    robopolicy data import --fps 50 --still 0.01 aloha/ --out demos/

    A bad episode is left out and named; exit code 3.
    """
    from polydit.robopolicy.data.importing import import_dataset, open_source
    from polydit.robopolicy.data.readers import number_of_episodes

    recipe = ImportRecipe(source=str(source), **settings)
    dataset = open_source(recipe)
    total = number_of_episodes(dataset, recipe.limit)
    with output.progress(total, what="episodes", unit="episode") as progress:
        imported = import_dataset(
            dataset, out, recipe, overwrite=overwrite, watch=lambda index: progress.update()
        )
    for index, reason in imported.bad:
        output.warn(f"episode {index} is left out: {reason}")
    bad = [{"episode": index, "reason": reason} for index, reason in imported.bad]
    summary = {"out": str(out), "written": imported.written, "kept": imported.kept, "bad": bad}
    earlier = f", {imported.kept} are of an earlier call" if imported.kept else ""
    line = f"wrote {imported.written} episodes{earlier}; {len(bad)} are left out"
    output.summary(summary, line, f"data: {out}")
    ctx.exit(SOME_BAD if bad else 0)
