"""`polydit route`: which module is computed at which step, learnt on a user's own checkpoint (HarmoniCa)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polydit.core.cli.group import INTERRUPTED
from polydit.core.cli.options import output_options
from polydit.core.cli.output import Output
from polydit.core.cli.settings import measure, prepare, record_of, said, sampler_options
from polydit.core.errors import InputError
from polydit.core.sampling.cache.named import NONE, CacheSetting

if TYPE_CHECKING:
    from polydit.core.sampling.cache.router import RouterTraining
    from polydit.core.sampling.cache.routes import RouteTable
    from polydit.core.sampling.calibration import Sampler, Setting


@click.command()
@sampler_options
@click.option("--iterations", type=click.IntRange(min=1), default=200, help="Trajectories to train on.")
@click.option("--beta", type=click.FloatRange(min=0.0, min_open=True), default=7e-8,
              help="What computing a module costs: more = more modules are reused.")  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(min=0.0, min_open=True), default=0.05, help="Step size of Adam."
)
@click.option("--proxy-every", type=click.IntRange(min=1), default=50,
              help="Trajectories after which it is found anew how much each step matters.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the router at its start.")
@click.option("--rounds", type=click.IntRange(min=1), default=2,
              help="Runs of each setting that is measured; the median counts.")  # fmt: skip
@click.option("--out", "-o", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="File of the table.")  # fmt: skip
@output_options
def route(
    domain: str,
    checkpoint: str | None,
    num_samples: int,
    requests: tuple[str, ...],
    iterations: int,
    beta: float,
    rate: float,
    proxy_every: int,
    seed: int,
    rounds: int,
    out: Path,
    output: Output,
) -> None:
    """Learn which modules are computed at which steps, and write the table.

    \b
    polydit route DOMAIN --out routes.json
    polydit route DOMAIN --checkpoint model/checkpoint --iterations 400 --beta 1e-6 --out routes.json

    A router is trained on whole trajectories of the checkpoint's own setting, whose weights stay as they are (Huang et
    al. 2025). The file is written anew whenever the table changes, so Ctrl-C loses nothing. At the end the table is
    measured beside no cache. It is for runs of that number of steps.
    """
    from polydit.core.sampling.cache.router import RouterTraining

    training = RouterTraining(iterations=iterations, beta=beta, rate=rate, proxy_every=proxy_every, seed=seed)
    if "," in str(out):
        raise InputError(f"{out} has a comma, which --cache reads as the end of the name", where="--out")
    out.parent.mkdir(parents=True, exist_ok=True)
    _, sampler = prepare(domain, checkpoint, num_samples, requests)
    plain = replace(sampler.default, cache=NONE)
    table = _trained(sampler, plain, training, out, output)
    best = replace(plain, cache=str(CacheSetting("harmonica", {"table": str(out)})))
    calibration = measure(sampler, [plain, best], rounds, output)
    output.table([record_of(one, calibration.default) for one in calibration.measured])
    measured = [one for one in calibration.measured if one.setting == best]
    output.summary(
        {
            "cache": best.cache,
            "num_steps": table.num_steps,
            "reused": table.reused,
            "chosen": record_of(measured[0], calibration.default) if measured else None,
        },
        f"{100 * table.reused:.0f} % of the modules are reused"
        + ("" if table.reused else ": more iterations or a larger --beta skip some"),
        *(said(one, calibration.default) for one in measured),
        f"--cache '{best.cache}'",
    )


def _trained(
    sampler: Sampler, setting: Setting, training: RouterTraining, out: Path, output: Output
) -> RouteTable:
    """The table of the last iteration, which the file holds too."""
    from polydit.core.sampling.cache.router import train_router

    tables: list[RouteTable] = []

    with output.progress(training.iterations, what="trajectories", unit="run") as progress:

        def keep(table: RouteTable) -> None:
            if not tables or table != tables[-1]:
                table.write(out)
            tables.append(table)
            progress.set_postfix_str(f"{100 * table.reused:.0f} % reused")
            progress.update()

        try:
            return train_router(sampler.network, lambda: sampler(setting), training, on_iteration=keep)
        except KeyboardInterrupt:
            last = f"{out} holds the table of trajectory {len(tables)}" if tables else "no table yet"
            output.note(f"Interrupted: {last}.")
            raise click.exceptions.Exit(INTERRUPTED) from None
