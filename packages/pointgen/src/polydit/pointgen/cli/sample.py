"""`pointgen sample`: point clouds into a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
from polydit.pointgen.checkpoint import ALL, Checkpoint
from polydit.pointgen.cli.job import (
    ShapeCall,
    ShapeJob,
    format_option,
    points_option,
    settled,
    solver_option,
)
from polydit.pointgen.sampling_plan import SamplingPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call(ShapeCall):
    category: str
    num_samples: int


@click.command()
@click.option(
    "--category", default=ALL, metavar="all|NAME,NAME",
    help="What to make: a category, several by commas, or all of the checkpoint's; equally many of each.",
)  # fmt: skip
@num_samples_option
@points_option
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
def sample(ctx: click.Context, /, output: Output, **values: Any) -> None:
    """Generate point clouds into a run folder.

    \b
    pointgen sample --category chair --num-samples 16 --points 4096 --out run/
    pointgen sample --num-samples 400 --format npy --out run/
    pointgen sample --num-samples 100000 --shard 0/4 --out run-0/

    Clouds are written as they are made. The same command run again goes on where it stopped, and a larger
    --num-samples adds to a run: a cloud is the same whatever the batch size, the shard and the number of samples.
    """
    call = _Call(**values)
    checkpoint = Checkpoint.find(call.checkpoint)
    categories = checkpoint.chosen(call.category)
    plan = SamplingPlan(
        num_samples=call.num_samples,
        seed=call.seed,
        shard=call.shard,
        limit=call.limit,
        categories=categories,
    )
    ShapeJob(plan=plan, categories=categories, **settled(call, checkpoint)).run(ctx, output)
