"""`pointgen interpolate`: a row of shapes between the noises of two seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import click

from polydit.core.cli.options import (
    checkpoint_option,
    guidance_scale_option,
    num_steps_option,
    report_option,
    run_options,
)
from polydit.core.cli.output import Output
from polydit.core.cli.sampling import cache_option
from polydit.core.errors import InputError
from polydit.pointgen.checkpoint import Checkpoint
from polydit.pointgen.cli.complete import one_category
from polydit.pointgen.cli.job import (
    ShapeCall,
    ShapeJob,
    format_option,
    points_option,
    settled,
    solver_option,
)
from polydit.pointgen.sampling_plan import InterpolationPlan

_SEED = click.IntRange(0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call(ShapeCall):
    category: str
    to_seed: int
    steps: int


class _Job(ShapeJob):
    command = "pointgen interpolate"
    growing = frozenset()  # another number of steps has other shapes in between


@click.command()
@click.option("--category", required=True, metavar="NAME", help="What all shapes of the row are.")
@click.option(
    "--from-seed", type=_SEED, required=True, help="Of the first shape; an item's seed in a manifest makes that item."
)  # fmt: skip
@click.option("--to-seed", type=_SEED, required=True, help="Of the last shape.")
@click.option("--steps", type=click.IntRange(min=2), default=8, help="Shapes in the row, both ends included.")
@points_option
@num_steps_option(type=click.IntRange(min=2))
@guidance_scale_option
@solver_option
@cache_option
@format_option
@checkpoint_option
@report_option
@run_options
@click.pass_context
def interpolate(ctx: click.Context, /, output: Output, **values: Any) -> None:
    """Make a row of shapes from one seed to another.

    \b
    pointgen interpolate --category chair --from-seed 1 --to-seed 2 --steps 8 --out row/

    The start noise goes along the sphere between the noises of both seeds (slerp). An item's seed in the manifest of a
    run, with the same category, number of points and steps of the sampler, gives that item again.
    """
    call = _Call(seed=values.pop("from_seed"), **values)
    checkpoint = Checkpoint.find(call.checkpoint)
    categories = one_category(call.category, checkpoint)
    if call.solver == "ddpm":
        raise InputError("draws noise in every step: a row of it is no row", where="--solver ddpm")
    if call.solver == "auto":
        call = replace(call, solver=checkpoint.deterministic_solver)
    plan = InterpolationPlan(
        num_samples=call.steps,
        seed=call.seed,
        shard=call.shard,
        limit=call.limit,
        category=categories[0],
        seed_to=call.to_seed,
    )
    _Job(plan=plan, categories=categories, **settled(call, checkpoint)).run(ctx, output)
