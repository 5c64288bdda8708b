"""The command `pointgen`. Each command lives in its own module and is imported when it is called."""

from __future__ import annotations

import click

from polydit.core.cli.group import DomainGroup

_COMMANDS = {
    "sample": ("polydit.pointgen.cli.sample:sample", "Generate point clouds into a run folder."),
    "complete": ("polydit.pointgen.cli.complete:complete", "Complete partial point clouds."),
    "interpolate": (
        "polydit.pointgen.cli.interpolate:interpolate",
        "Make a row of shapes from one seed to another.",
    ),
    "train": ("polydit.pointgen.cli.train:train", "Train a network on point clouds."),
    "evaluate": ("polydit.pointgen.cli.evaluate:evaluate", "Measure clouds by the field's metrics."),
    "data": ("polydit.pointgen.cli.data:data", "Make, import and inspect data sets."),
    "convert": ("polydit.pointgen.cli.convert:convert", "Turn a published checkpoint into our layout."),
    "info": ("polydit.pointgen.cli.info:info", "Show what a checkpoint is, its licence and its limits."),
    "report": ("polydit.pointgen.cli.report:report", "Write the report page of a run."),
}


@click.group(
    name="pointgen",
    cls=DomainGroup,
    lazy=_COMMANDS,
    distributions=("polydit-pointgen", "polydit-core", "torch"),
)
def pointgen() -> None:
    """Generate and complete 3D point clouds with a diffusion transformer over voxels.

    \b
    pointgen sample --category chair --num-samples 16 --out run/
    pointgen complete scan.ply --category chair --out completed/
    pointgen evaluate run/ --reference ds/val

    Every option can also be given as an environment variable (POINTGEN_SAMPLE_NUM_STEPS=50) or in a TOML file
    (--config).
    """
