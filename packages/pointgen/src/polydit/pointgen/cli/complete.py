"""`pointgen complete`: what a partial cloud may have been."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import click

from polydit.core.cli.options import (
    checkpoint_option,
    guidance_scale_option,
    num_samples_option,
    num_steps_option,
    report_option,
    run_options,
    seed_option,
)
from polydit.core.cli.output import Output
from polydit.core.cli.sampling import cache_option
from polydit.core.errors import InputError
from polydit.pointgen.checkpoint import Checkpoint
from polydit.pointgen.cli.job import (
    ShapeCall,
    ShapeJob,
    format_option,
    points_option,
    settled,
    solver_option,
)
from polydit.pointgen.data.recipe import Scaling
from polydit.pointgen.sampling_plan import CompletionPlan

_ANY = "any"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call(ShapeCall):
    inputs: tuple[Path, ...]
    category: str
    num_samples: int
    normalise: Scaling


class _Job(ShapeJob):
    command = "pointgen complete"

    def resolved(self) -> dict[str, Any]:
        return {**super().resolved(), "category": self.categories[0] if self.categories else _ANY}


@click.command()
@click.argument(
    "inputs", nargs=-1, required=True, metavar="PARTIAL...",
    type=click.Path(exists=True, path_type=Path),
)  # fmt: skip
@click.option(
    "--category", default=_ANY, metavar="any|NAME",
    help="What the clouds are; any: the network is not told, which is guidance scale 0.",
)  # fmt: skip
@num_samples_option(default=1, help="How many completions of each.")
@points_option(help="Points of a completed cloud, the known ones included.")
@click.option(
    "--normalise", type=click.Choice(get_args(Scaling)), default="none",
    help="unit-box: let the network see the known points with the longest side of their box as 1 and its centre as 0, "
    "and put the result back. none: they are in the units of the training data.",
)  # fmt: skip
@num_steps_option(type=click.IntRange(min=2))
@guidance_scale_option
@solver_option
@cache_option
@seed_option
@format_option
@checkpoint_option
@report_option
@run_options
@click.pass_context
def complete(ctx: click.Context, /, output: Output, **values: Any) -> None:
    """Complete each PARTIAL, a file with some points of a shape (PLY, OBJ, GLB, STL, OFF, XYZ, NPY; y up), or a folder.

    \b
    pointgen complete scan.ply --category chair --out run/
    pointgen complete scans/*.npy --num-samples 4 --normalise unit-box --points 4096 --out run/

    The known points stay as they are and come first in the result. A mesh counts as points on its surface. The same
    command run again goes on where it stopped.
    """
    call = _Call(**values)
    checkpoint = Checkpoint.find(call.checkpoint)
    filled = settled(call, checkpoint)
    categories = _categories(call, checkpoint)
    if not categories:
        filled["guidance_scale"] = 0.0
    plan = CompletionPlan(
        num_samples=call.num_samples,
        seed=call.seed,
        shard=call.shard,
        limit=call.limit,
        inputs=_files(call.inputs),
        category=categories[0] if categories else checkpoint.categories[0],
    )
    _Job(plan=plan, categories=categories, frame=call.normalise, **filled).run(ctx, output)


def _files(inputs: Sequence[Path]) -> list[Path]:
    """The files that are given or lie in the folders that are given, each once."""
    from polydit.pointgen.data.readers import data_files

    found = (data_files(path) if path.is_dir() else [path] for path in inputs)
    return list(dict.fromkeys(chain.from_iterable(found)))


def _categories(call: _Call, checkpoint: Checkpoint) -> tuple[str, ...]:
    """The one category to be told; none for "any", unless the checkpoint has only one."""
    if call.category == _ANY:
        if len(checkpoint.categories) == 1:
            return checkpoint.categories
        if call.guidance_scale:
            hint = f"Add --category, one of {', '.join(checkpoint.categories)}."
            raise InputError(
                "no category to guide by", where=f"--guidance-scale {call.guidance_scale:g}", hint=hint
            )
        return ()
    return one_category(call.category, checkpoint)


def one_category(text: str, checkpoint: Checkpoint) -> tuple[str]:
    """The category that follows `--category` where there must be one.

    Raises:
        InputError: There are several, or the checkpoint lacks it.
    """
    names = checkpoint.chosen(text)
    if len(names) != 1:
        raise InputError(
            "expected one category", where=f"--category {text}", expected=", ".join(checkpoint.categories)
        )
    return (names[0],)
