"""What every report of a run ends with: its settings with their sources, and where its items come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polydit.core.jobs.run_record import RunRecord
from polydit.core.report.sections import Table


def settings_table(run: RunRecord) -> Table:
    """The options of a run and where each came from."""
    options = run.run["options"]
    rows = [(name.replace("_", "-"), _plain(o["value"]), o["source"]) for name, o in options.items()]
    note = f"{run.command} --config run.json --out ANOTHER repeats the run."
    return Table(title="Settings", columns=("Setting", "Value", "From"), rows=rows, note=note)


def provenance_table(run: RunRecord) -> Table:
    """Times, checkpoint, device and software of a run."""
    times = {name: run.run.get(name) for name in ("status", "started", "ended")}
    content = {**times, **run.provenance, **run.run.get("environment", {})}
    return Table(title="Provenance", columns=("What", "Value"), rows=_flat(content))


def _flat(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as rows: {"checkpoint": {"name": ...}} becomes "checkpoint name"."""
    rows: list[tuple[str, str]] = []
    for name, value in content.items():
        label = f"{prefix}{name}".replace("_", " ")
        rows += _flat(value, f"{label} ") if isinstance(value, Mapping) else [(label, _plain(value))]
    return rows


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
