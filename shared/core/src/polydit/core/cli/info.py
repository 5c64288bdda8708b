"""The command `info` of a domain: what a checkpoint is, from its card and its headers; no weight is read."""

from __future__ import annotations

import pkgutil
from typing import Any

import click

from polydit.core.cli.domains import Domain
from polydit.core.cli.options import output_options
from polydit.core.cli.output import Output


def info_command(domain: Domain, checkpoint_class: str) -> click.Command:
    """Make the command.

    Args:
        domain: Whose checkpoints are listed.
        checkpoint_class: ``"module:Class"`` of its ``Checkpoint``, imported when the command is called.
    """

    @click.command()
    @click.argument("checkpoint", required=False, metavar="[CHECKPOINT]")
    @click.option("--list", "list_all", is_flag=True, help="The checkpoints that are known by name.")
    @output_options
    def info(checkpoint: str | None, list_all: bool, output: Output) -> None:
        """Show what CHECKPOINT is: parameters, licence, data, measured figures, limits.

        CHECKPOINT is a listed name, a folder or hf://OWNER/REPO[@REV]; without it, the starter that ships with the
        package.
        """
        if list_all:
            output.table([entry.record() for entry in domain.checkpoints])
            return
        record = pkgutil.resolve_name(checkpoint_class).find(checkpoint).describe()
        card = record["card"]
        lines = [
            f"{key}: {_shown(value)}"
            for key, value in record.items()
            if key != "card" and value not in ("", {}, [])
        ]
        output.summary(record, *lines, *(["", card] if card else []))

    return info


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        words = [str(item) for item in value]
        return ("; " if any(" " in word for word in words) else " ").join(words)
    return f"{value:,}" if isinstance(value, int) else str(value)
