"""A dataset as a static HTML gallery."""

from mvv.report.build import build_report

__all__ = ["build_report"]
