"""One vocabulary of options for every command of every domain.

Each name below is a decorator, bare or with changes::

    @seed_option
    @num_samples_option(default=100)

Zero is a value everywhere; ``None`` means "as the checkpoint or the machine suggests", and the help says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, cast

import click

from polydit.core.cli.config import add_settings, read_config
from polydit.core.cli.output import Output
from polydit.core.jobs.plan import Shard as Shard

Decorated = Callable[..., Any]


class SharedOption:
    """One option of the vocabulary; call it on a function, or with changes to get a decorator."""

    def __init__(self, *names: str, **settings: Any) -> None:
        self.names, self.settings = names, settings

    def __call__(self, function: Decorated | None = None, /, **changes: Any) -> Any:
        decorator = click.option(*self.names, **{**self.settings, **changes})
        return decorator if function is None else decorator(function)


# ---------------------------------------------------------------------------------------------------------
# Values that click has no type for. str(value) is the text that was typed, so run.json can repeat it.


class AutoInt(click.ParamType):
    """``auto`` or a whole number of at least ``minimum``."""

    name = "auto|integer"

    def __init__(self, minimum: int = 1) -> None:
        self.minimum = minimum

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        try:
            number = int(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither 'auto' nor a whole number.", param, ctx)
        if number < self.minimum:
            self.fail(f"{number} is below {self.minimum}.", param, ctx)
        return number


class CommaList(click.ParamType):
    """Values of a fixed set, separated by commas: ``sdf,xyz``. Gives a tuple without repetitions.

    Args:
        choices: The set.
        refused: Values that somebody may well ask for, each with the reason why it is none of them.
    """

    name = "list"

    def __init__(self, choices: Sequence[str], refused: Mapping[str, str] | None = None) -> None:
        self.choices, self.refused = tuple(choices), dict(refused or {})

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return ",".join(self.choices)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        names = tuple(dict.fromkeys(str(part).strip() for part in parts))
        for name in names:
            if name not in self.choices:
                why = f" {self.refused[name]}" if name in self.refused else ""
                self.fail(f"{name!r} is not one of {', '.join(self.choices)}.{why}", param, ctx)
        return names


class ShardType(click.ParamType):
    """``I/N`` with 0 <= I < N."""

    name = "I/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Shard:
        if isinstance(value, Shard):
            return value
        match = re.fullmatch(r"(\d+)/(\d+)", str(value))
        if match is None or int(match[1]) >= int(match[2]):
            self.fail(f"{value!r} is not I/N with 0 <= I < N, such as 0/4.", param, ctx)
        return Shard(int(match[1]), int(match[2]))


class DeviceType(click.ParamType):
    """``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``."""

    name = "auto|cpu|cuda[:i]|mps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", str(value)):
            self.fail(f"{value!r} is not one of auto, cpu, cuda, cuda:0, mps.", param, ctx)
        return str(value)


# ---------------------------------------------------------------------------------------------------------
# Where results go and what is done with earlier ones.

out_option = SharedOption(
    "--out", "-o", type=click.Path(path_type=Path), required=True, metavar="PATH",
    help="Where to write; used as given. A run folder that exists is continued.",
)  # fmt: skip
overwrite_option = SharedOption("--overwrite", is_flag=True, help="Discard what is there and start again.")
fail_fast_option = SharedOption("--fail-fast", is_flag=True, help="Stop at the first item that fails.")
retry_failed_option = SharedOption(
    "--retry-failed", is_flag=True, help="Try again what failed in an earlier run."
)
dry_run_option = SharedOption(
    "--dry-run", is_flag=True, help="Print the plan and what it costs; write nothing."
)

# What to make.

num_samples_option = SharedOption(
    "--num-samples", type=click.IntRange(min=0), default=10, help="How many samples to make.",
)  # fmt: skip
seed_option = SharedOption(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=0, help="Base seed; each item draws from its own."
)
num_steps_option = SharedOption(
    "--num-steps", type=click.IntRange(min=1), default=None, show_default="the checkpoint's",
    help="Steps of the sampler.",
)  # fmt: skip
guidance_scale_option = SharedOption(
    "--guidance-scale", type=click.FloatRange(min=0), default=None, show_default="the checkpoint's",
    help="Strength of classifier-free guidance; 1 adds none, 0 ignores the condition.",
)  # fmt: skip
checkpoint_option = SharedOption(
    "--checkpoint", metavar="NAME|PATH|hf://OWNER/REPO[@REV]", default=None, show_default="the starter",
    help="Weights: a listed name, a folder, a file or a hub address.",
)  # fmt: skip

report_option = SharedOption(
    "--report/--no-report", default=True, help="Write report.html at the end.",
)  # fmt: skip

# How to compute; these never change what is made beyond rounding.

batch_size_option = SharedOption(
    "--batch-size", type=AutoInt(), default="auto", metavar="auto|N",
    help="Items computed at once; halved when memory runs out.",
)  # fmt: skip
device_option = SharedOption(
    "--device", type=DeviceType(), default="auto", metavar="auto|cpu|cuda[:i]|mps", help="Where to compute."
)
dtype_option = SharedOption(
    "--dtype", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto",
    help="Precision of the network.",
)  # fmt: skip
workers_option = SharedOption(
    "--workers", type=click.IntRange(min=1), default=1, help="Processes side by side."
)
percent_option = SharedOption(
    "--split", "percent", type=click.IntRange(0, 100), nargs=3, metavar="TRAIN VAL TEST",
    help="Percentages of train, val and test.",
)  # fmt: skip
shard_option = SharedOption(
    "--shard", type=ShardType(), default=None, show_default="everything", help="Do part I (from 0) of N."
)
limit_option = SharedOption(
    "--limit",
    type=click.IntRange(min=0),
    default=None,
    show_default="no limit",
    help="At most this many items.",
)

# Configuration. The values reach the command through click's defaults and the `settings` argument.

config_option = SharedOption(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), is_eager=True,
    expose_value=False, callback=read_config, metavar="FILE",
    help="Options from a TOML file, or run.json of a run to repeat it.",
)  # fmt: skip
set_option = SharedOption(
    "--set", "settings", multiple=True, metavar="A.B=VALUE", callback=add_settings, show_default=False,
    help="Change one nested setting; may be repeated. VALUE is TOML, or else plain text.",
)  # fmt: skip

# How the command speaks.


def _remember_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta["polydit.debug"] = ctx.meta.get("polydit.debug", False) or value


json_option = SharedOption("--json", "as_json", is_flag=True, help="One JSON object per line on stdout.")
quiet_option = SharedOption("--quiet", "-q", is_flag=True, help="Only results and errors.")
verbose_option = SharedOption(
    "--verbose", "-v", count=True, show_default=False, help="More detail; -vv for most."
)
debug_option = SharedOption(
    "--debug", is_flag=True, is_eager=True, expose_value=False, callback=_remember_debug,
    help="Show the traceback of an error.",
)  # fmt: skip


def output_options(function: Decorated) -> Decorated:
    """Add ``--json -q -v --debug``; the command gets them as one argument ``output``."""

    @json_option
    @quiet_option
    @verbose_option
    @debug_option
    @wraps(function)
    def speaking(*args: Any, as_json: bool, quiet: bool, verbose: int, **options: Any) -> Any:
        return function(*args, output=Output(json=as_json, quiet=quiet, verbose=verbose), **options)

    return cast(Decorated, speaking)


def stacked(function: Decorated, *decorators: Callable[[Decorated], Any]) -> Decorated:
    """The function as if the decorators stood above it in this order."""
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def run_options(function: Decorated) -> Decorated:
    """What every command that fills a run folder takes.

    ``out, overwrite, limit, shard, batch_size, device, dtype, fail_fast, retry_failed, dry_run, output``
    arrive as arguments; ``--config`` and ``--debug`` act by themselves.
    """
    return stacked(
        function,
        out_option, overwrite_option, config_option, batch_size_option, device_option, dtype_option,
        shard_option, limit_option, fail_fast_option, retry_failed_option, dry_run_option, output_options,
    )  # fmt: skip


# Options that say how a command speaks or treats earlier results: not part of what run.json repeats.
ABOUT_THE_CALL = frozenset({
    "config", "overwrite", "dry_run", "as_json", "quiet", "verbose", "debug", "fail_fast", "retry_failed",
    "help",
})  # fmt: skip
# Options that may differ when a run is continued in its folder: results agree to rounding all the same.
MAY_DIFFER = ABOUT_THE_CALL | {"out", "batch_size", "device", "workers", "shard", "limit"}
