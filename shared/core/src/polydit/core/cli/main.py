"""The command `polydit`: what is installed here, and whether it works."""

from __future__ import annotations

import click

from polydit.core.cli.domains import installed_domains
from polydit.core.cli.group import DomainGroup
from polydit.core.cli.options import output_options
from polydit.core.cli.output import Output

_COMMANDS = {
    "calibrate": (
        "polydit.core.cli.calibrate:calibrate",
        "Measure steps, solvers and caches on a checkpoint, and choose.",
    ),
    "doctor": ("polydit.core.cli.doctor:doctor", "Check what works here and how to fix what does not."),
    "list": ("polydit.core.cli.main:list_domains", "List installed domains, their models and licences."),
    "route": (
        "polydit.core.cli.route:route",
        "Learn which modules of a checkpoint are reused at which steps.",
    ),
    "share": (
        "polydit.core.cli.share:share",
        "Find the steps whose blocks are best shared with those after them.",
    ),
}


@click.group(name="polydit", cls=DomainGroup, lazy=_COMMANDS)
def polydit() -> None:
    """What is installed here, and whether it works.

    Each domain has a command of its own: see `polydit list`.
    """


@click.command(name="list")
@output_options
def list_domains(output: Output) -> None:
    """List installed domains, their models and licences."""
    from importlib.metadata import version

    domains = installed_domains()
    rows = [
        {"command": domain.command, "version": version(domain.distribution), **entry.record()}
        for domain in domains
        for entry in domain.checkpoints
    ]
    output.table(rows)
    if not domains:
        output.note("No domain is installed. Install one with: pip install ./shared/core ./packages/NAME")
