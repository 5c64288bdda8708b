"""`polydit route`: which module is computed at which step, learnt on a user's own checkpoint (HarmoniCa)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from polydit.core.cli.group import INTERRUPTED
from polydit.core.cli.options import output_options, overwrite_option
from polydit.core.cli.output import Output
from polydit.core.cli.settings import measure, prepare, record_of, said, sampler_options, write_index
from polydit.core.errors import InputError
from polydit.core.sampling.cache.named import CACHE_KEY, NONE, CacheSetting

if TYPE_CHECKING:
    from polydit.core.checkpoints.checkpoint import Checkpoint
    from polydit.core.sampling.cache.router import RouterTraining
    from polydit.core.sampling.cache.router_state import RouterState
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
@click.option("--write", is_flag=True, help="Make the table the checkpoint's own cache.")
@click.option("--out", "-o", type=click.Path(path_type=Path, dir_okay=False), required=True,
              help="File of the table; a training that is there goes on.")  # fmt: skip
@overwrite_option
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
    write: bool,
    out: Path,
    overwrite: bool,
    output: Output,
) -> None:
    """Learn which modules are computed at which steps, and write the table.

    \b
    polydit route DOMAIN --out routes.json
    polydit route DOMAIN --checkpoint model/checkpoint --iterations 400 --beta 1e-6 --out routes.json --write

    A router is trained on whole trajectories of the checkpoint's own setting, whose weights stay as they are (Huang et
    al. 2025). After each of them the table is in its file and the training in another beside it: the same command goes
    on where it stopped, and more --iterations add to it. At the end the table is measured beside no cache. It is for
    runs of that number of steps.
    """
    from polydit.core.sampling.cache.router import RouterTraining
    from polydit.core.sampling.calibration import in_one_run

    training = RouterTraining(iterations=iterations, beta=beta, rate=rate, proxy_every=proxy_every, seed=seed)
    if "," in str(out):
        raise InputError(f"{out} has a comma, which --cache reads as the end of the name", where="--out")
    found, sampler = prepare(domain, checkpoint, num_samples, requests)
    plain = replace(sampler.default, cache=NONE)
    settings = {"checkpoint": _weights_of(found), "setting": str(plain), "num_samples": num_samples,
                "request": sorted(requests), "beta": beta, "rate": rate, "proxy_every": proxy_every,
                "seed": seed}  # fmt: skip
    place = _Place(out, {key: str(value) for key, value in settings.items()})
    start = place.begin(overwrite=overwrite)
    table = _trained(in_one_run(sampler), plain, training, place, start, output)
    best = replace(plain, cache=str(CacheSetting("harmonica", {"table": str(out)})))
    calibration = measure(sampler, [plain, best], rounds, output)
    output.table([record_of(one, calibration.default) for one in calibration.measured])
    measured = [one for one in calibration.measured if one.setting == best]
    if write:
        write_index(found.path, {CACHE_KEY: str(best.cache)})
    output.summary(
        {
            "cache": best.cache,
            "num_steps": table.num_steps,
            "reused": table.reused,
            "chosen": record_of(measured[0], calibration.default) if measured else None,
            "written": str(found.path) if write else None,
        },
        f"{100 * table.reused:.0f} % of the modules are reused"
        + ("" if table.reused else ": more iterations or a larger --beta skip some"),
        *(said(one, calibration.default) for one in measured),
        f"--cache '{best.cache}'",
        *([f"written to {found.path}"] if write else ["--write makes it the checkpoint's own"]),
    )


def _weights_of(checkpoint: Checkpoint) -> str:
    """A digest of the weights alone: what is written into the index ends no training."""
    import hashlib

    from polydit.core.checkpoints.files import sha256_of

    files = sorted(checkpoint.path.rglob("*.safetensors"))
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class _Place:
    """The files of one training.

    Args:
        out: The table.
        settings: What the training is of.
    """

    out: Path
    settings: Mapping[str, str]

    @property
    def state(self) -> Path:
        """What a training goes on from."""
        return self.out.with_name(f"{self.out.name}.training")

    def begin(self, *, overwrite: bool) -> RouterState | None:
        """Where an earlier call of the same training stopped; None = nothing is there.

        Raises:
            InputError: There is another training, or a table without one.
        """
        from polydit.core.jobs.files import naming_write_errors
        from polydit.core.sampling.cache.router_state import RouterState

        with naming_write_errors(self.out.parent):
            self.out.parent.mkdir(parents=True, exist_ok=True)
            if overwrite:
                self.state.unlink(missing_ok=True)
                return None
        if self.state.exists():
            return RouterState.read(self.state, self.settings)
        if self.out.exists():
            raise InputError(
                "there is a table already", where=f"--out {self.out}", hint="Use --overwrite to replace it"
            )
        return None

    def keep(self, table: RouteTable, state: RouterState) -> None:
        """The table first: what a state says has been written is there."""
        table.write(self.out)
        state.write(self.state, self.settings)


def _trained(
    sampler: Sampler,
    setting: Setting,
    training: RouterTraining,
    place: _Place,
    start: RouterState | None,
    output: Output,
) -> RouteTable:
    """The table of the last iteration, which the file holds too."""
    from polydit.core.sampling.cache.router import train_router

    done = 0 if start is None else start.iterations
    with output.progress(training.iterations, what="trajectories", unit="run", initial=done) as progress:

        def keep(table: RouteTable, state: RouterState) -> None:
            nonlocal done
            place.keep(table, state)
            done = state.iterations
            progress.set_postfix_str(f"{100 * table.reused:.0f} % reused")
            progress.update()

        try:
            return train_router(
                sampler.network, lambda: sampler(setting), training, start=start, on_iteration=keep
            )
        except KeyboardInterrupt:
            last = f"{place.out} holds the table of trajectory {done}" if done else "no table yet"
            output.note(f"Interrupted: {last}. The same command goes on.")
            raise click.exceptions.Exit(INTERRUPTED) from None
