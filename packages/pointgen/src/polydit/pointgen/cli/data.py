"""`pointgen data`: make, inspect and import data sets."""

from __future__ import annotations

from dataclasses import fields
from itertools import chain, islice
from pathlib import Path
from typing import Any, get_args

import click

from polydit.core.cli.options import (
    config_option,
    limit_option,
    out_option,
    output_options,
    overwrite_option,
    percent_option,
    seed_option,
    workers_option,
)
from polydit.core.cli.output import Output
from polydit.core.datasets.splits import SPLITS
from polydit.pointgen.data.recipe import (
    CATEGORIES,
    FEWEST_POINTS,
    MOST_POINTS,
    ImportRecipe,
    MakeRecipe,
    Scaling,
)

SOME_BAD = 3
_MAKE = {field.name: field.default for field in fields(MakeRecipe)}
_IMPORT = {field.name: field.default for field in fields(ImportRecipe)}


points_option = click.option(
    "--points", "num_points", type=click.IntRange(FEWEST_POINTS, MOST_POINTS), default=_MAKE["num_points"],
    help="Points of each stored shape.",
)  # fmt: skip


@click.group()
def data() -> None:
    """Make, import and inspect data sets."""


@data.command()
@click.option(
    "--category", "categories", type=click.Choice(CATEGORIES), multiple=True, show_default="all four",
    help="What to make; may be repeated.",
)  # fmt: skip
@click.option("--num", type=click.IntRange(min=0), default=_MAKE["num"], help="Shapes of each category.")
@points_option
@percent_option(default=_MAKE["percent"])
@seed_option(default=_MAKE["seed"], help="Seed of all shapes.")
@out_option(help="Folder of the data set; one that was interrupted is gone on with.", metavar="DIR")
@overwrite_option(help="Replace the data set that is there.")
@config_option
@workers_option
@output_options
def make(
    out: Path,
    overwrite: bool,
    categories: tuple[str, ...],
    num: int,
    num_points: int,
    percent: tuple[int, int, int],
    seed: int,
    workers: int,
    output: Output,
) -> None:
    """Make parametric airplanes, cars, chairs and tables as a PC15k data set, offline.

    \b
    pointgen data make --num 2000 --out ds/
    pointgen data make --category chair --num 2000 --workers 4 --out chairs/

    The same command run again goes on where it was interrupted, and gives the same bytes.
    """
    categories = tuple(dict.fromkeys(categories)) or CATEGORIES
    from polydit.pointgen.data.make import make_dataset

    kept = 0
    with output.progress(num * len(categories), what="shapes", unit="shape") as progress:

        def begin(number: int) -> None:
            nonlocal kept
            kept = number
            progress.update(number)

        about = make_dataset(
            out,
            categories,
            num,
            seed,
            workers,
            num_points=num_points,
            percent=percent,
            overwrite=overwrite,
            on_begin=begin,
            on_shapes=progress.update,
        )
    made = num * len(categories) - kept
    earlier = f", {kept} are of an earlier call" if kept else ""
    summary = {"out": str(out), "made": made, "kept": kept, "shapes": about["shapes"]}
    output.summary(summary, f"made {made} shapes{earlier}", f"data: {out}")


@data.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--category", default=None, show_default="all", metavar="NAME", help="Only this category.")
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default=None,
    show_default="all",
    help="Of PC15k data: only this split.",
)
@click.option(
    "--show-rejected", type=click.IntRange(min=0), default=20, help="How many rejected entries to name."
)
@limit_option(help="At most this many clouds and rejected entries.")
@output_options
@click.pass_context
def inspect(
    ctx: click.Context,
    /,
    paths: tuple[Path, ...],
    category: str | None,
    split: str | None,
    show_rejected: int,
    limit: int | None,
    output: Output,
) -> None:
    """Show what is in PATHS: counts, points, extents, mean and scale, and what was rejected and why.

    PATHS are files or folders: PLY, OBJ, GLB, STL, OFF, XYZ, NPY, NPZ, or PC15k data sets. Exit code 3 if something was
    rejected.

    \b
    pointgen data inspect ds/
    pointgen data inspect --json scans/
    """
    from polydit.pointgen.data.inspect import Inspection
    from polydit.pointgen.data.readers import read_clouds

    records = chain.from_iterable(read_clouds(path, category=category, split=split) for path in paths)
    found = Inspection(show_rejected=show_rejected).add_all(islice(records, limit))
    output.summary(found.to_json(), *found.lines())
    ctx.exit(SOME_BAD if found.num_rejected else 0)


@data.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--category", default=_IMPORT["category"], show_default="the first folder below SOURCE", metavar="NAME",
    help="Category of all its shapes.",
)  # fmt: skip
@click.option(
    "--scaling", type=click.Choice(get_args(Scaling)), default=_IMPORT["scaling"],
    help="unit-box: centre each shape on its bounding box, longest side 1 (LION's norm_box).",
)  # fmt: skip
@points_option
@percent_option(
    default=_IMPORT["percent"],
    help="Percentages of train, val and test, of files in no folder of such a name.",
)
@seed_option(default=_IMPORT["seed"], help="Seed of the points and of the split.")
@out_option(help="Folder of the data set; one that was interrupted is gone on with.", metavar="DIR")
@overwrite_option(help="Replace the data set that is there.")
@config_option
@workers_option
@output_options
@click.pass_context
def import_data(
    ctx: click.Context,
    /,
    source: Path,
    out: Path,
    overwrite: bool,
    workers: int,
    output: Output,
    **settings: Any,
) -> None:
    """Write any folder of meshes or clouds anew as a PC15k data set.

    \b
    pointgen data import ModelNet10/ --scaling unit-box --out ds/
    pointgen data import scans/ --category chair --points 4096 --out ds/

    Meshes are sampled evenly over their surface; of a larger cloud points are drawn, a smaller one is left out. Files
    in folders named train, val or test stay in that split. A bad shape is left out and named; exit code 3.
    """
    recipe = ImportRecipe(source=str(source), **settings)
    from polydit.pointgen.data.importing import import_dataset, plan_import

    plan = plan_import(recipe)
    with output.progress(len(plan.shapes), what="shapes", unit="shape") as progress:
        imported = import_dataset(
            out,
            recipe,
            plan=plan,
            workers=workers,
            overwrite=overwrite,
            on_begin=progress.update,
            on_shape=progress.update,
        )
    for entry in imported.left_out:
        output.warn(f"{entry.source} is left out: {entry.reason}")
    left_out = [{"source": entry.source, "reason": entry.reason} for entry in imported.left_out]
    summary = {"out": str(out), "written": imported.written, "kept": imported.kept, "left_out": left_out}
    earlier = f", {imported.kept} are of an earlier call" if imported.kept else ""
    line = f"wrote {imported.written} shapes{earlier}; {len(left_out)} are left out"
    output.summary(summary, line, f"data: {out}")
    ctx.exit(SOME_BAD if left_out else 0)
