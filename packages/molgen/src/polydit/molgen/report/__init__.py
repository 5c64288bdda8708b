"""The report page of a run of `molgen sample`."""

from __future__ import annotations

from polydit.molgen.report.page import write_report

__all__ = ["write_report"]
