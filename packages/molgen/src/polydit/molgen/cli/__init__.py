"""The command `molgen`. Each command lives in its own module and is imported when it is called."""

from __future__ import annotations

import click

from polydit.core.cli.group import DomainGroup

_COMMANDS = {
    "sample": ("polydit.molgen.cli.sample:sample", "Generate molecules or crystals into a run folder."),
    "train": ("polydit.molgen.cli.train:train", "Train an autoencoder and a denoiser on structures."),
    "evaluate": ("polydit.molgen.cli.evaluate:evaluate", "Measure structures by the field's metrics."),
    "data": ("polydit.molgen.cli.data:data", "Make and inspect data sets."),
    "convert": (
        "polydit.molgen.cli.convert:convert",
        "Turn a published checkpoint into our layout.",
    ),
    "info": ("polydit.molgen.cli.info:info", "Show what a checkpoint is, its licence and its limits."),
    "report": ("polydit.molgen.cli.report:report", "Write the report page of a run."),
}


@click.group(
    name="molgen", cls=DomainGroup, lazy=_COMMANDS, distributions=("polydit-molgen", "polydit-core", "torch")
)
def molgen() -> None:
    """Generate molecules and crystals with an all-atom latent diffusion transformer.

    \b
    molgen sample --num-samples 100 --out run/
    molgen sample --kind crystal --num-samples 20 --out crystals/
    molgen evaluate run/

    Every option can also be given as an environment variable (MOLGEN_SAMPLE_NUM_STEPS=50) or in a TOML file
    (--config).
    """
