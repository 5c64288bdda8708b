"""What every command that trains does around its fit: options, run folder, progress, summary, dry run.

A command takes the `training_options` as one `TrainingCall`, reads its data into a `TrainingJob`, and calls its `run`.
Nothing here imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast, runtime_checkable

import click

from polydit.core.cli.config import Option, dotted, effective_options
from polydit.core.cli.options import (
    MAY_DIFFER,
    Decorated,
    SharedOption,
    config_option,
    dry_run_option,
    limit_option,
    out_option,
    output_options,
    overwrite_option,
    set_option,
    stacked,
)
from polydit.core.cli.output import Output
from polydit.core.jobs import RunFolder

R = TypeVar("R")

data_option = SharedOption(
    "--data", required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH"
)
_device_option = SharedOption(
    "--device", type=click.Choice(["auto", "cpu"]), default="auto", help="Where to compute."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCall:
    """The options that every such call has, as click gives them.

    Args:
        options: All options of the command with their sources, those of the domain too.
        settings: Nested settings of the recipe: dotted key to value.
    """

    options: Mapping[str, Option]
    device: str
    out: Path
    overwrite: bool
    settings: Mapping[str, Any]
    limit: int | None
    dry_run: bool
    output: Output


def training_options(*, things: str) -> Callable[[Decorated], Decorated]:
    """Decorator: what every command that trains takes after its own options; the command gets it as `call`.

    Args:
        things: What the data are made of, in the plural, for the help of ``--limit``.
    """
    shared = TrainingCall.__dataclass_fields__.keys() - {"options"}

    def decorate(function: Decorated) -> Decorated:
        @wraps(function)
        def called(**values: Any) -> Any:
            options = effective_options(click.get_current_context())
            call = TrainingCall(options=options, **{name: values.pop(name) for name in shared})
            return function(call=call, **values)

        return stacked(
            called,
            _device_option, out_option, overwrite_option, config_option, set_option,
            limit_option(help=f"At most this many {things}."), dry_run_option, output_options,
        )  # fmt: skip

    return decorate


@runtime_checkable
class Tell(Protocol):
    """Says how far a training is."""

    def __call__(self, step: int, steps: int, scalars: Mapping[str, Any], *, stage: str = "") -> None:
        """Tells of one step.

        Args:
            step: The step, from 1.
            steps: All of the stage.
            scalars: At least ``loss`` and ``seconds_per_step``.
            stage: Name of the stage, of a training that has several.
        """


@dataclass(frozen=True, kw_only=True)
class TrainingJob(ABC, Generic[R]):
    """A call with its data read; each command derives its own from it.

    Args:
        call: The options.
        recipe: All settings: a dataclass.
    """

    command: ClassVar[str]  # as the user types it, such as "tool train"
    next_command: ClassVar[str]  # what takes the checkpoint, such as "tool sample"
    products: ClassVar[Sequence[str]]  # what it leaves in its folder

    call: TrainingCall
    recipe: R

    @abstractmethod
    def provenance(self) -> Mapping[str, Any]:
        """What decides the weights besides the options, such as the size of the data."""

    @abstractmethod
    def fit(self, tell: Tell) -> Path:
        """Trains into `call.out`, or goes on there; returns the checkpoint."""

    @abstractmethod
    def plan(self) -> tuple[dict[str, Any], list[str]]:
        """What a dry run says of data and network: for a program, and as lines."""

    def run(self) -> None:
        """Does the call."""
        if self.call.dry_run:
            self._print_plan()
            return
        with RunFolder.open(
            self.call.out,
            command=self.command,
            options=self.call.options,
            provenance=self.provenance(),
            overwrite=self.call.overwrite,
            free=MAY_DIFFER - {"limit"},  # which decides what is learnt
            products=self.products,
        ):
            checkpoint = self.fit(self._tell)
        command = f"{self.next_command} --checkpoint {checkpoint} --out run/"
        record = {"checkpoint": str(checkpoint), "next": command}
        self.call.output.summary(record, f"next: {command}", str(checkpoint))

    def _tell(self, step: int, steps: int, scalars: Mapping[str, Any], *, stage: str = "") -> None:
        output = self.call.output
        output.item({"stage": stage, **scalars} if stage else scalars)
        loss, seconds = f"{scalars['loss']:.4g}", f"{scalars['seconds_per_step']:.2f}"
        output.note(f"{stage} {step}/{steps}  loss {loss}  {seconds} s/step".lstrip())

    def _print_plan(self) -> None:
        facts, lines = self.plan()
        recipe = asdict(cast(Any, self.recipe))
        settings = [f"  {key} = {value}" for key, value in dotted(recipe)]
        self.call.output.summary({"dry_run": True, **facts, "recipe": recipe}, *lines, *settings)
