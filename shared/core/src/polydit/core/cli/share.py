"""`polydit share`: the steps at which the first blocks are computed best, on a user's own checkpoint (DDT)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import click

from polydit.core.cli.options import output_options
from polydit.core.cli.output import Output
from polydit.core.cli.settings import measure, prepare, record_of, said, sampler_options, write_index
from polydit.core.sampling.cache.named import CACHE_KEY, NONE, CacheSetting


@click.command()
@sampler_options
@click.option("--every", type=click.IntRange(min=1), default=3, help="Steps per computed one, on average.")
@click.option("--share", type=click.FloatRange(0.0, 1.0), default=0.75,
              help="How many of the blocks are shared: the first ones.")  # fmt: skip
@click.option(
    "--rounds", type=click.IntRange(min=1), default=2, help="Runs of each setting; the median counts."
)
@click.option("--write", is_flag=True, help="Make the table the checkpoint's own cache.")
@output_options
def share(
    domain: str,
    checkpoint: str | None,
    num_samples: int,
    requests: tuple[str, ...],
    every: int,
    share: float,
    rounds: int,
    write: bool,
    output: Output,
) -> None:
    """Find the steps whose blocks are best shared with those after them.

    \b
    polydit share DOMAIN
    polydit share DOMAIN --checkpoint model/checkpoint --every 2 --write

    One run of the checkpoint's own setting records what the first blocks give at every step. Of all tables with as many
    computed steps, the one that keeps those states least far from their own is found exactly (Wang et al. 2025). It is
    measured beside no cache, and beside as many steps at even distances. The table is for runs of that number of steps.
    """
    from polydit.core.sampling.cache.sharing import optimal_sharing, shared_states
    from polydit.core.sampling.calibration import in_one_run

    found, sampler = prepare(domain, checkpoint, num_samples, requests)
    plain = replace(sampler.default, cache=NONE)
    together = in_one_run(sampler)
    states = shared_states(sampler.network, share, lambda: together(plain))
    steps, total = optimal_sharing(states, every), len(states)
    even = [index * total // len(steps) for index in range(len(steps))]
    best, evenly = (replace(plain, cache=_named(chosen, total, share)) for chosen in (steps, even))
    calibration = measure(sampler, [plain, evenly, best], rounds, output)
    output.table([record_of(one, calibration.default) for one in calibration.measured])
    if write:
        write_index(found.path, {CACHE_KEY: str(best.cache)})
    measured = [one for one in calibration.measured if one.setting == best]
    output.summary(
        {
            "cache": best.cache,
            "full_steps": list(steps),
            "num_steps": total,
            "chosen": record_of(measured[0], calibration.default) if measured else None,
            "written": str(found.path) if write else None,
        },
        *(said(one, calibration.default) for one in measured),
        f"--cache '{best.cache}'",
        *([f"written to {found.path}"] if write else ["--write makes it the checkpoint's own"]),
    )


def _named(steps: Iterable[int], total: int, share: float) -> str:
    """The cache of a table."""
    return str(CacheSetting("ddt", {"full": "+".join(map(str, steps)), "of": total, "share": share}))
