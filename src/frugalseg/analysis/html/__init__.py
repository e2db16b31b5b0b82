"""The static report: pages of HTML from run folders alone, without server, network or script."""

from frugalseg.analysis.html.report import Summary, write_report

__all__ = ["Summary", "write_report"]
