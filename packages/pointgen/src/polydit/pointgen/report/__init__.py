"""The report page of a run of `pointgen sample`, `complete` or `interpolate`."""

from __future__ import annotations

from polydit.pointgen.report.page import write_report

__all__ = ["write_report"]
