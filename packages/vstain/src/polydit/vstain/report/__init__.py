"""The report page of a run of `vstain run`."""

from __future__ import annotations

from polydit.vstain.report.page import write_report

__all__ = ["write_report"]
