"""What the commands share that judge sampling settings: the checkpoint and its sampler, the measuring, the index."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from polydit.core.cli.domains import Domain, installed_domains
from polydit.core.cli.output import Output
from polydit.core.errors import InputError
from polydit.core.sampling.cache.named import CACHE_KEY
from polydit.core.sampling.cache.suggested import into_folder

if TYPE_CHECKING:
    from polydit.core.checkpoints.checkpoint import Checkpoint
    from polydit.core.sampling.calibration import Calibration, Measured, Sampler, Setting

_FINER = 8  # times the default's steps: the error of such a run is some hundredth of the default's


def sampler_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Which checkpoint, and which items of it: `domain`, `checkpoint`, `num_samples` and `requests`."""
    decorators = (
        click.argument("domain"),
        click.option("--checkpoint", metavar="NAME|PATH", default=None, show_default="the starter",
                     help="Checkpoint to sample."),
        click.option("--num-samples", type=click.IntRange(min=1), default=8, help="Items of each run."),
        click.option("--request", "requests", multiple=True, metavar="KEY=VALUE",
                     help="What to sample, by the names of the options of the domain's own sample command."),
    )  # fmt: skip
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def prepare(
    name: str, checkpoint: str | None, num_samples: int, requests: Sequence[str]
) -> tuple[Checkpoint, Sampler]:
    """The checkpoint and its sampler, from the domain's own hook.

    Raises:
        InputError: There is no such domain, or a request is no pair or not one of the domain's.
        CheckpointError: There is no such checkpoint.
    """
    from pkgutil import resolve_name

    request = dict(_pair(text) for text in requests)
    domains = {domain.name: domain for domain in installed_domains() if domain.calibration}
    if name not in domains:
        raise InputError(
            f"{name} is no installed domain that can be calibrated",
            where="DOMAIN",
            expected=", ".join(domains) or "pip install ./packages/NAME first",
        )
    domain: Domain = domains[name]
    found: tuple[Checkpoint, Sampler] = resolve_name(domain.calibration)(checkpoint, num_samples, request)
    return found


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"{text!r} is no pair", where="--request", expected="KEY=VALUE")
    return key.strip().replace("-", "_"), value.strip()


def filled(request: Mapping[str, str], **defaults: str | int) -> dict[str, Any]:
    """A request with what it leaves open, for a domain's hook.

    Args:
        request: As `--request` says it.
        defaults: All keys that it may have; where the default is a whole number, so is the value.

    Raises:
        InputError: It has another key, or a value that is no whole number where one must be.
    """
    if unknown := sorted(request.keys() - defaults.keys()):
        *names, last = defaults
        expected = f"{', '.join(names)} or {last}" if names else last
        raise InputError(f"there is no {unknown[0]}", where="--request", expected=expected)
    asked: dict[str, Any] = {**defaults, **request}
    for key, default in defaults.items():
        if isinstance(default, int):
            if not str(asked[key]).isdigit():
                raise InputError(f"{key} is {asked[key]!r}", where="--request", expected="a whole number")
            asked[key] = int(asked[key])
    return asked


def refuse_new_noise(checkpoint: Checkpoint, what: str) -> None:
    """A sampler that draws noise in every step has no exact result to compare with.

    Raises:
        InputError: Always.
    """
    raise InputError(
        f"{checkpoint.name} draws new noise in every step, so no run comes near to another as steps are added",
        where="DOMAIN",
        hint=f"Compare settings by what `{checkpoint.domain.command} evaluate` says of its {what}",
    )


def measure(sampler: Sampler, settings: Iterable[Setting], rounds: int, output: Output) -> Calibration:
    """The settings beside the checkpoint's own, by the distance to a run of many more steps; notes what is refused."""
    from polydit.core.sampling.calibration import Setting, calibrate

    settings = list(settings)
    reference = Setting(num_steps=_FINER * sampler.default.num_steps, solver=sampler.default.solver)
    with output.progress(rounds * len({*settings, sampler.default}), what="settings", unit="run") as progress:
        calibration = calibrate(
            sampler, settings, reference, rounds=rounds, on_run=lambda setting: progress.update()
        )
    for setting, reason in calibration.refused.items():
        output.note(f"left out: {setting}: {reason}")
    return calibration


def record_of(one: Measured, default: Measured) -> dict[str, Any]:
    """A row of a table, with the speed over the default's."""
    return {
        "num_steps": one.setting.num_steps,
        "solver": one.setting.solver,
        "cache": str(one.setting.cache),
        "seconds": one.seconds,
        "speed": default.seconds / one.seconds,
        "error": one.error,
        "moved": one.moved,
    }


def said(one: Measured, default: Measured) -> str:
    """A setting against the default, as a person says it."""
    if one.setting == default.setting:
        return f"{one.setting}: the checkpoint's own"
    speed, error = default.seconds / one.seconds, one.error / default.error if default.error else 1.0
    return f"{one.setting}: {speed:.2f} times as fast as {default.setting}, {error:.2f} times its error"


def write_index(folder: Path, values: Mapping[str, str | int]) -> None:
    """Into the index of a checkpoint, whole or not at all; the table of a cache goes into its folder."""
    from polydit.core.checkpoints.checkpoint import INDEX
    from polydit.core.jobs.files import atomic_file, naming_write_errors

    path = folder / INDEX
    stored = {
        key: into_folder(str(value), folder) if key == CACHE_KEY else value for key, value in values.items()
    }
    index = {**json.loads(path.read_text()), **stored}
    with naming_write_errors(folder), atomic_file(path) as handle:
        handle.write((json.dumps(index, indent=1) + "\n").encode())
