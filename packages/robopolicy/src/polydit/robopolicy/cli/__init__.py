"""The command `robopolicy`. Each command lives in its own module and is imported when it is called."""

from __future__ import annotations

import click

from polydit.core.cli.group import DomainGroup

_COMMANDS = {
    "data": ("polydit.robopolicy.cli.data:data", "Make, inspect and import demonstrations."),
    "train": ("polydit.robopolicy.cli.train:train", "Train a policy on demonstrations."),
    "evaluate": (
        "polydit.robopolicy.cli.evaluate:evaluate",
        "Run a policy in a simulator and count successes.",
    ),
    "serve": (
        "polydit.robopolicy.cli.serve:serve",
        "Answer a robot's observations with actions, over a socket.",
    ),
    "convert": ("polydit.robopolicy.cli.convert:convert", "Turn a published checkpoint into our layout."),
    "info": ("polydit.robopolicy.cli.info:info", "Show what a checkpoint is, its licence and its limits."),
    "report": ("polydit.robopolicy.cli.report:report", "Write the report page of an evaluation."),
}


@click.group(
    name="robopolicy",
    cls=DomainGroup,
    lazy=_COMMANDS,
    distributions=("polydit-robopolicy", "polydit-core", "torch"),
)
def robopolicy() -> None:
    """Train, evaluate and serve diffusion-transformer policies for robots.

    \b
    robopolicy evaluate --env metaworld --task drawer-open-v3 --episodes 50 --out run/
    robopolicy data make --env metaworld --task drawer-open-v3 --episodes 50 --out demos/
    robopolicy train --model mode --data demos/ --out policy/

    Every option can also be given as an environment variable (ROBOPOLICY_EVALUATE_EPISODES=20) or in a TOML file
    (--config).
    """
