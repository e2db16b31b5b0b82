"""SFC: shared feature calibration in weakly supervised semantic segmentation (AAAI 2024, arXiv 2401.11719)."""

from frugalseg.papers.sfc.task import SFC

__all__ = ["SFC"]
