"""`molgen info`: what a checkpoint is, from its card and its headers; no weight is read."""

from __future__ import annotations

from typing import Any

import click

from polydit.core.cli.options import output_options
from polydit.core.cli.output import Output


@click.command()
@click.argument("checkpoint", required=False, metavar="[CHECKPOINT]")
@click.option("--list", "list_all", is_flag=True, help="The checkpoints that are known by name.")
@output_options
def info(checkpoint: str | None, list_all: bool, output: Output) -> None:
    """Show what CHECKPOINT is: parameters, licence, data, measured figures, limits.

    CHECKPOINT is a listed name, a folder or hf://OWNER/REPO[@REV]; without it, the starter that ships with the package.
    """
    if list_all:
        output.table([_entry(entry) for entry in _known()])
        return
    record = _describe(checkpoint)
    card = record["card"]
    lines = [
        f"{key}: {_shown(value)}"
        for key, value in record.items()
        if key != "card" and value not in ("", {}, [])
    ]
    output.summary(record, *lines, *(["", card] if card else []))


def _known() -> tuple[Any, ...]:
    from polydit.molgen.domain import DOMAIN

    return DOMAIN.checkpoints


def _entry(entry: Any) -> dict[str, Any]:
    from polydit.core.checkpoints.folder import component_sizes

    here = entry.is_here()
    parameters = sum(component_sizes(entry.path).values()) if here else entry.parameters
    return {
        "name": entry.name,
        "here": "yes" if here else "no",
        "parameters": parameters or None,
        "licence": entry.licence,
        "summary": entry.summary,
    }


def _describe(reference: str | None) -> dict[str, Any]:
    """Everything that headers, index and card tell."""
    from polydit.core.checkpoints.folder import component_sizes, read_card
    from polydit.molgen.checkpoint import Checkpoint

    found = Checkpoint.find(reference)
    card = read_card(found.path)
    limits = next((entry.limits for entry in _known() if entry.name == found.name), "")
    histograms = found.index.get("size_histograms") or {}
    return {
        "name": found.name,
        "path": str(found.path),
        "sha256": found.sha256,
        "bytes": sum(file.stat().st_size for file in found.path.rglob("*") if file.is_file()),
        "parameters": component_sizes(found.path),
        "licence": found.licence,
        "atoms": {kind: _range(sizes) for kind, sizes in histograms.items() if sizes},
        "elements": {kind: list(counts) for kind, counts in (found.index.get("elements") or {}).items()},
        "num_steps": found.num_steps,
        "guidance_scale": found.guidance_scale,
        "limits": limits,
        **card.fields,
        "card": card.text,
    }


def _range(sizes: dict[str, int]) -> str:
    atoms = [int(size) for size in sizes]
    return f"{min(atoms)}-{max(atoms)}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
