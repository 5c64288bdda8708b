"""The command `vstain`. Each command lives in its own module and is imported when it is called."""

from __future__ import annotations

import click

from polydit.core.cli.group import DomainGroup

_COMMANDS = {
    "run": ("polydit.vstain.cli.run:run", "Stain tiles and whole slides virtually."),
    "train": ("polydit.vstain.cli.train:train", "Train a network on pairs of H&E and a stain."),
    "evaluate": ("polydit.vstain.cli.evaluate:evaluate", "Measure virtual stains by the field's metrics."),
    "data": ("polydit.vstain.cli.data:data", "Make, import and inspect pairs; make a procedural slide."),
    "info": ("polydit.vstain.cli.info:info", "Show what a checkpoint is, its licence and its limits."),
    "report": ("polydit.vstain.cli.report:report", "Write the report page of a run."),
}


@click.group(
    name="vstain",
    cls=DomainGroup,
    lazy=_COMMANDS,
    distributions=("polydit-vstain", "polydit-core", "torch"),
)
def vstain() -> None:
    """Stain H&E virtually: tiles and whole slides, with a diffusion transformer. Not for diagnosis.

    \b
    vstain run slide.svs --stain ck --out run/
    vstain run tiles/*.png --stain cd3 --out run/
    vstain evaluate run/ --reference ds/test/IHC

    Every option can also be given as an environment variable (VSTAIN_RUN_NUM_STEPS=5) or in a TOML file (--config).
    """
