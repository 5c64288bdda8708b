"""`vstain data`: make, inspect and import data sets, and write procedural slides."""

from __future__ import annotations

from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import click

from polydit.core.cli.options import (
    CommaList,
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
from polydit.vstain.data.recipe import LAYOUTS, STAINS, ImportRecipe, MakeRecipe

SOME_BAD = 3
_MAKE = {field.name: field.default for field in fields(MakeRecipe)}
_IMPORT = {field.name: field.default for field in fields(ImportRecipe)}


class _DataGroup(click.Group):
    """The command `slide` lives in its own module, and is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "slide"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "slide":
            return super().get_command(ctx, cmd_name)
        from polydit.vstain.cli.data_slide import slide

        return slide


layout_option = click.option(
    "--layout", type=click.Choice(["auto", *LAYOUTS]), default=_IMPORT["layout"], help="How the pairs lie."
)
channels_option = click.option(
    "--channels", type=CommaList(("dapi", "panck", "cd3")), default=_IMPORT["channels"],
    show_default="must be said for HEMIT", help="Channels of HEMIT's labels, in their order.",
)  # fmt: skip


@click.group(cls=_DataGroup)
def data() -> None:
    """Make, import and inspect data sets."""


@data.command()
@click.option(
    "--num", type=click.IntRange(min=0), default=_MAKE["num"], help="Tiles, of all stains together."
)
@click.option(
    "--stain", "stains", type=CommaList(STAINS), default=_MAKE["stains"], show_default=",".join(STAINS),
    help="What to make; tiles take turns.",
)  # fmt: skip
@percent_option(default=_MAKE["percent"])
@click.option(
    "--coverage", type=click.FloatRange(0, 1), default=_MAKE["coverage"],
    help="Share of a slide that is tissue; the rest is glass.",
)  # fmt: skip
@seed_option(default=_MAKE["seed"], help="Seed of all tiles.")
@out_option(help="Folder of the data set; one that was interrupted is gone on with.", metavar="DIR")
@overwrite_option(help="Replace the data set that is there.")
@config_option
@workers_option
@output_options
def make(
    out: Path,
    overwrite: bool,
    num: int,
    stains: tuple[str, ...],
    percent: tuple[int, int, int],
    coverage: float,
    seed: int,
    workers: int,
    output: Output,
) -> None:
    """Make tiles of procedural slides: H&E, immunohistochemistry and masks of positive cells, offline.

    \b
    vstain data make --num 2000 --out ds/
    vstain data make --stain cd3 --num 500 --workers 4 --out cd3/

    The same command run again goes on where it was interrupted, and gives the same bytes.
    """
    from polydit.vstain.data.make import make_dataset

    kept = 0
    with output.progress(num, what="tiles", unit="tile") as progress:

        def begin(number: int) -> None:
            nonlocal kept
            kept = number
            progress.update(number)

        about = make_dataset(
            out,
            num,
            stains,
            seed,
            workers,
            percent=percent,
            coverage=coverage,
            overwrite=overwrite,
            on_begin=begin,
            on_tiles=progress.update,
        )
    earlier = f", {kept} are of an earlier call" if kept else ""
    summary = {"out": str(out), "made": num - kept, "kept": kept, "tiles": about["tiles"]}
    output.summary(summary, f"made {num - kept} tiles{earlier}", f"data: {out}")


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@layout_option
@channels_option
@click.option("--stain", default=None, show_default="all", metavar="NAME", help="Only this stain.")
@click.option("--split", type=click.Choice(SPLITS), default=None, show_default="all", help="Only this split.")
@click.option(
    "--show-rejected", type=click.IntRange(min=0), default=20, help="How many rejected pairs to name."
)
@limit_option(help="At most this many pairs.")
@output_options
@click.pass_context
def inspect(
    ctx: click.Context,
    /,
    path: Path,
    layout: str,
    channels: tuple[str, ...] | None,
    stain: str | None,
    split: str | None,
    show_rejected: int,
    limit: int | None,
    output: Output,
) -> None:
    """Show what is in PATH: stains, splits, sizes, positive area, and what was rejected and why.

    PATH is a folder of one of the layouts, or a CSV file. Every image is read; exit code 3 if a pair was rejected.

    \b
    vstain data inspect ds/
    vstain data inspect --json BCI/
    """
    from polydit.vstain.data.find import find_pairs
    from polydit.vstain.data.inspect import Inspection

    pairs = find_pairs(path, split=split, stain=stain, layout=layout, channels=channels)
    found = Inspection(show_rejected=show_rejected).add_all(islice(pairs, limit))
    output.summary(found.to_json(), *found.lines())
    ctx.exit(SOME_BAD if found.num_rejected else 0)


@data.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@layout_option
@channels_option
@click.option(
    "--stain", default=_IMPORT["stain"], show_default="all", metavar="NAME",
    help="Only this stain; where the data name none, the stain of all pairs.",
)  # fmt: skip
@click.option(
    "--tile", type=click.IntRange(16, 8192), default=_IMPORT["tile"], help="Pixels of a tile's side."
)
@click.option(
    "--mpp", type=click.FloatRange(0.01, 100), default=_IMPORT["mpp"], show_default="as they are",
    help="Microns per pixel to resample to.",
)  # fmt: skip
@click.option(
    "--source-mpp", type=click.FloatRange(0.01, 100), default=_IMPORT["source_mpp"],
    show_default="as the layout says", help="Microns per pixel where the data do not say.",
)  # fmt: skip
@percent_option(
    default=_IMPORT["percent"], help="Percentages of train, val and test, of pairs that are in no split."
)
@seed_option(default=_IMPORT["seed"], help="Seed of that split.")
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
    """Write pairs of any layout anew, cut to tiles, as a data set for training.

    \b
    vstain data import BCI/ --out ds/
    vstain data import MIST/ --stain ki67 --mpp 0.5 --out ds/
    vstain data import HEMIT/ --channels dapi,panck,cd3 --out ds/
    vstain data import mine/ --stain ck --source-mpp 0.25 --mpp 0.5 --out ds/

    Layouts: BCI, MIST, HEMIT, images glued side by side, two folders of the same names (HE/ and IHC/, or A/ and
    B/), and a CSV file of the columns he, ihc and, if known, id, mask, stain, split, mpp. Tiles lie edge to edge in
    the middle of an image. Where there are no masks they are derived from the DAB of the stain. A bad pair is left
    out and named; exit code 3.
    """
    recipe = ImportRecipe(source=str(source), **settings)
    from polydit.vstain.data.importing import import_dataset, plan_import

    plan = plan_import(recipe)
    with output.progress(len(plan), what="pairs", unit="pair") as progress:
        imported = import_dataset(
            out,
            recipe,
            plan=plan,
            workers=workers,
            overwrite=overwrite,
            on_begin=progress.update,
            on_pair=progress.update,
        )
    for entry in imported.left_out:
        output.warn(f"{entry.source} is left out: {entry.reason}")
    left_out = [entry._asdict() for entry in imported.left_out]
    summary = {
        "out": str(out),
        "written": imported.written,
        "kept": imported.kept,
        "tiles": imported.tiles,
        "left_out": left_out,
    }
    earlier = f", {imported.kept} are of an earlier call" if imported.kept else ""
    line = f"wrote {imported.written} pairs{earlier}: {imported.tiles} tiles; {len(left_out)} are left out"
    output.summary(summary, line, f"data: {out}")
    ctx.exit(SOME_BAD if left_out else 0)
