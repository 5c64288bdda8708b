"""The page of a run: what every report says around the sections of its domain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from polydit.core.jobs.files import atomic_file, naming_write_errors
from polydit.core.jobs.run_record import RunRecord
from polydit.core.report.page import Page
from polydit.core.report.run_tables import provenance_table, settings_table
from polydit.core.report.sections import Section, Table

MOST_FAILURES: Final = 200


def run_page(run: RunRecord, *, subject: Sequence[str], sections: Sequence[Section], purpose: str) -> Page:
    """A page that ends with the run's settings and provenance, its purpose and the licence of its checkpoint.

    Args:
        run: The run.
        subject: What was made, such as "12 clouds": the subtitle begins with it; empty texts are left out.
        sections: What the domain shows of it.
        purpose: What the results are for, or are not for.
    """
    found = run.provenance.get("checkpoint")
    checkpoint: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    name, licence = checkpoint.get("name"), checkpoint.get("licence")
    parts = [
        *subject,
        f"checkpoint {name}" if name else "",
        str(run.run.get("started", ""))[:10],
        str(run.run.get("status", "")),
    ]
    return Page(
        title=run.command,
        subtitle=" · ".join(part for part in parts if part),
        sections=[*sections, settings_table(run), provenance_table(run)],
        footer=[purpose, *([f"Licence of the checkpoint: {licence}."] if licence else [])],
    )


def failed_items(run: RunRecord) -> list[tuple[str, str]]:
    """The first failed items of a run and why each failed."""
    return [(record["id"], record["error"]["message"]) for record in islice(run.failed(), MOST_FAILURES)]


def failures(
    rows: Sequence[tuple[str, str]], total: int, *, title: str = "Failures", item: str = "Item"
) -> list[Section]:
    """The table of what failed; no section if nothing did.

    Args:
        rows: Items and reasons, the first.
        total: How many there are.
        title: Heading.
        item: What one is called.
    """
    if not rows:
        return []
    more = total - len(rows)
    note = f"And {more:,} more; manifest.jsonl names all of them." if more else ""
    return [Table(title=title, columns=(item, "Reason"), rows=rows, note=note)]


def write_page(page: Page, path: Path, *, figures: Mapping[str, Any]) -> Path:
    """Writes a page, and its numbers as `figures.json` beside it; returns the page's path."""
    page.write(path)
    with naming_write_errors(path.parent), atomic_file(path.with_name("figures.json")) as file:
        file.write(json.dumps(figures, indent=2, ensure_ascii=False).encode())
    return path


def counted(number: int, noun: str) -> str:
    """A number of things as text: "1 cloud", "1,200 clouds"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
