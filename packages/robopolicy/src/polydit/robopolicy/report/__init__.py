"""The report page of a run of `robopolicy evaluate`."""

from __future__ import annotations

from polydit.robopolicy.report.page import write_report

__all__ = ["write_report"]
